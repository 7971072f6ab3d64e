import numpy as np

from kcnn.label_errors import suspicious


def test_confident_learning_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 1])
    probabilities = np.array(
        [
            [0.9, 0.1],
            [0.8, 0.2],
            [0.1, 0.9],  # labelled 0
            [0.3, 0.7],
            [0.45, 0.55],
            [0.65, 0.35],  # labelled 1
        ]
    )
    # Means of the own class: 0.6 for class 0, 0.5333 for class 1.
    found = suspicious(labels, probabilities)
    assert found.tolist() == [[2, 1], [5, 0]]  # margins 0.8 and 0.3


def test_a_wrong_prediction_below_the_usual_confidence_is_not_suspicious():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.95, 0.05], [0.4, 0.6], [0.1, 0.9], [0.05, 0.95]])
    # The mean of class 1 is 0.925: 0.6 says little.
    assert suspicious(labels, probabilities).shape == (0, 2)


def test_a_model_that_is_not_sure_of_anything_contradicts_nothing():
    labels = np.array([0, 1, 2])
    probabilities = np.array([[0.2, 0.45, 0.35], [0.3, 0.4, 0.3], [0.4, 0.3, 0.3]])
    assert suspicious(labels, probabilities).shape == (0, 2)


def test_a_class_without_a_label_is_never_said():
    labels = np.array([0, 0])
    probabilities = np.array([[0.1, 0.1, 0.8], [0.9, 0.05, 0.05]])
    assert suspicious(labels, probabilities).shape == (0, 2)

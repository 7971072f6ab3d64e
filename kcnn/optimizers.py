"""Keras optimizers whose step is one of TensorFlow's fused kernels.

Keras makes an update of half a dozen elementwise operations, each of which reads and
writes all weights. The kernels compute the same in one pass; Adam on the tutorial CNN
trains a third faster. State, options and serialization are Keras's.
"""

from __future__ import annotations

import keras
import tensorflow as tf


class Adam(keras.optimizers.Adam):
    """Adam; see keras.optimizers.Adam."""

    def update_step(self, gradient, variable, learning_rate):
        """Move a tf.Variable; amsgrad is done by Keras."""
        if self.amsgrad:  # not super(): AdamW has this method too
            keras.optimizers.Adam.update_step(self, gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


class AdamW(keras.optimizers.AdamW):
    """Adam with decoupled weight decay; see keras.optimizers.AdamW."""

    update_step = Adam.update_step


class SGD(keras.optimizers.SGD):
    """Gradient descent, with or without momentum; see keras.optimizers.SGD."""

    def update_step(self, gradient, variable, learning_rate):
        """Move a tf.Variable."""
        rate = tf.cast(learning_rate, variable.dtype)
        gradient = tf.cast(gradient, variable.dtype)
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.handle, alpha=rate, delta=gradient
            )
            return
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[index].value.handle,
            lr=rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )


class Muon(keras.optimizers.Muon):
    """Muon for convolutions, of which Keras's own knows nothing, and Adam for the rest.

    The momentum of a kernel, as a matrix of a row for each of a filter's inputs and a
    column a filter, is replaced by the nearest orthogonal one, so that no direction is
    learnt faster than another. From Jordan et al., "Muon: an optimizer for hidden
    layers in neural networks" (2024), with three steps of Newton and Schulz as in the
    CIFAR-10 speed record.
    """

    def __init__(self, *args, ns_steps: int = 3, rms_rate: float | None = None, **kw):
        super().__init__(*args, ns_steps=ns_steps, rms_rate=rms_rate, **kw)

    # One weight decay for all, where Keras's own Muon has another for Adam's part.
    _apply_weight_decay = keras.optimizers.Optimizer._apply_weight_decay

    def _should_use_adamw(self, variable):
        return len(variable.shape) != 4

    def _muon_update_step(self, gradient, variable, lr, m):
        m.assign(m * self.momentum + gradient)
        along = gradient + m * self.momentum
        matrix = tf.reshape(along, (-1, along.shape[-1]))
        update = self.zeropower_via_newtonschulz5(matrix, self.ns_steps)
        self.assign_sub(variable, lr * tf.reshape(update, along.shape))

    def zeropower_via_newtonschulz5(self, x, steps: int):
        """Return the orthogonal matrix that Newton and Schulz come to in so many steps.

        A step multiplies the matrix by a polynomial of its Gram matrix, and so does all
        that follow: their polynomials, small as they are, are multiplied with each
        other, and the matrix once, at the end.

        Args:
            x: (rows, columns) float32.
            steps: 1 or more.
        """
        x /= tf.norm(x) + 1e-7  # no singular value is above 1
        tall = x.shape[0] > x.shape[1]
        gram = tf.matmul(x, x, transpose_a=tall, transpose_b=not tall)
        product = factor = self._polynomial(gram)
        for _ in range(steps - 1):
            gram = factor @ gram @ factor
            factor = self._polynomial(gram)
            product @= factor
        return x @ product if tall else product @ x

    def _polynomial(self, gram):
        identity = tf.eye(gram.shape[0])
        return self.muon_a * identity + self.muon_b * gram + self.muon_c * (gram @ gram)


class Adadelta(keras.optimizers.Adadelta):
    """Adadelta; see keras.optimizers.Adadelta."""

    def update_step(self, gradient, variable, learning_rate):
        """Move a tf.Variable."""
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdadelta(
            var=variable.handle,
            accum=self._accumulated_grads[index].value.handle,
            accum_update=self._accumulated_delta_vars[index].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            rho=self.rho,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )

"""TensorFlow and its kin as good citizens of the process: imported when needed, silent, on one thread."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

ENVIRONMENT = {
    "TF_USE_LEGACY_KERAS": "1",  # tensorflow-model-optimization works with tf_keras only
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # its sums depend on the processor
    "CUDA_VISIBLE_DEVICES": "-1",
}


def import_tensorflow() -> Any:
    """TensorFlow, without its start-up chatter; on one thread, which adds in one order wherever it runs."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with silent_stderr():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        with contextlib.suppress(RuntimeError):  # it is running already: whoever started it has decided
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Sends what native code and Python write to standard error to nowhere."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)

# SPDX-License-Identifier: Apache-2.0
"""Training: an ONNX file as a trainable torch module, and the finetune round around it.

torch is imported here and nowhere else in the library but in `graphprune.export` and in solvers that train.
"""

from graphprune.extras import require

require("train", "training and for gradients")

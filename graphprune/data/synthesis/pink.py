# SPDX-License-Identifier: Apache-2.0
"""Pink images: Gaussian noise whose amplitudes fall with the frequency, as those of photographs do.

Source: Field, Relations between the statistics of natural images and the response properties of cortical cells, J. Opt.
Soc. Am. A 4 (1987): amplitudes of natural scenes fall as 1 / frequency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graphprune.data.synthesis.pixels import Pixels

__all__ = ["pink_noise"]

_SLOPES = 0.7, 1.5
"""Exponents of the frequency, another one for every image."""
_COMMON = 0.85
"""Correlation of the channels: photographs differ in brightness more than in colour."""
_CONTRAST = 0.08, 0.3
_CHUNK = 1 << 24
"""Numbers transformed at once."""


def pink_noise(random: np.random.Generator, count: int, height: int, width: int) -> Pixels:
    """Make images of 1 / f noise.

    Parameters
    ----------
    random : numpy.random.Generator
    count, height, width : int

    Returns
    -------
    ndarray of float32, shape (count, height, width, 3), from 0 to 1

    Complexity: O(count * pixels * log pixels).
    """
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.hypot(y, x)
    frequency[0, 0] = 0.5 / max(height, width)  # the mean varies, too, from image to image
    logs = np.log(frequency).astype(np.float32)
    images = np.empty((count, height, width, 3), dtype=np.float32)
    step = max(1, _CHUNK // (3 * height * width))
    for start in range(0, count, step):
        chunk = images[start : start + step]
        noise = random.standard_normal((len(chunk), 4, height, width), dtype=np.float32)
        noise = np.float32(_COMMON**0.5) * noise[:, :1] + np.float32((1 - _COMMON) ** 0.5) * noise[:, 1:]
        slopes = random.uniform(*_SLOPES, (len(chunk), 1, 1, 1)).astype(np.float32)
        coloured = np.fft.irfft2(np.fft.rfft2(noise) * np.exp(-slopes * logs), s=(height, width)).astype(np.float32)
        deviation = coloured.std(axis=(1, 2, 3), keepdims=True) + np.float32(1e-12)
        contrast = random.uniform(*_CONTRAST, deviation.shape).astype(np.float32)
        chunk[:] = (np.float32(0.5) + coloured / deviation * contrast).transpose(0, 2, 3, 1)
    return np.clip(images, 0, 1, out=images)

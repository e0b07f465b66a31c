"""Colours of label maps: VOC's bit palette, ADE20K's published one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

VOID = 255
"""The label of pixels that no class has."""

Palette = npt.NDArray[np.uint8]

# ADE20K's 150 classes in the order of `objectInfo150.txt`: `data/color150.mat` of CSAILVision/semantic-segmentation-
# pytorch, as in `mmseg/datasets/ade.py` of MMSegmentation.
_ADE = bytes.fromhex(
    "787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33 "
    "ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff "
    "08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff "
    "eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff "
    "0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad "
    "0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 "
    "00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa "
    "8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3 "
    "ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff "
    "00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff "
)


def voc_palette() -> Palette:
    """Return VOC's colours of the labels 0-255, shape (256, 3), 255 being void.

    Of a label's bits the lowest three are the highest of red, green and blue, the next three the next ones, and so on
    (VOCdevkit, `VOClabelcolormap.m`). No two labels share a colour.
    """
    labels = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            if 3 * bit + channel < 8:
                colours[:, channel] |= ((labels >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def ade_palette() -> Palette:
    """Return ADE20K's colours, shape (256, 3): black for the background 0, 1-150 as published, 255 void."""
    colours = voc_palette()
    colours[1:151] = np.frombuffer(_ADE, dtype=np.uint8).reshape(150, 3)
    return colours


def palette_of(dataset: str) -> Palette:
    """Return a data set's colours by its own class ids, shape (256, 3): ADE20K's for `ade`, else VOC's."""
    return ade_palette() if dataset == "ade" else voc_palette()


def in_learning_order(palette: Palette, classes: Sequence[int]) -> Palette:
    """Return the colours of labels that count classes as they were learned: shape (256, 3).

    `classes` are the data set's own ids in learning order, without the background: label k is `classes[k - 1]`. The
    background and void keep their colours; ids from 255 on begin anew.
    """
    colours = palette.copy()
    colours[1 : 1 + len(classes)] = palette[np.asarray(classes, dtype=np.intp) % VOID]
    return colours

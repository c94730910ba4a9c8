"""The shared quantization dataset: reading what was recorded, augmenting, splitting, writing and loading."""

from quant.dataset.augmentation import augment
from quant.dataset.build import build_dataset
from quant.dataset.recording import Recording, read_drive
from quant.dataset.storage import Dataset, Split, load_dataset, save_dataset, spread

__all__ = [
    "Dataset",
    "Recording",
    "Split",
    "augment",
    "build_dataset",
    "load_dataset",
    "read_drive",
    "save_dataset",
    "spread",
]

"""DICOM whole slides, written by pydicom: a file per level, in one folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from tests.io.samples import halves

WHOLE_SLIDE_MICROSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.6"


def write_dicom_slide(folder: Path, image: np.ndarray, mpp: float = 0.5, levels: int = 2, jpeg: bool = False) -> Path:
    """A slide of uint8 ``image`` (H, W, 3) in tiles of 128 px; the path of its first file, which stands for it."""
    folder.mkdir(parents=True, exist_ok=True)
    series = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    for number, pixels in enumerate(halves(image, levels)):
        level = _level(folder / f"level-{number}.dcm", pixels, mpp * 2**number, jpeg)
        level.update(series)
        level.InstanceNumber = number + 1
        level.save_as(folder / f"level-{number}.dcm", enforce_file_format=True)
    return folder / "level-0.dcm"


def _level(path: Path, pixels: np.ndarray, mpp: float, jpeg: bool, tile_px: int = 128) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = WHOLE_SLIDE_MICROSCOPY, generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    level = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    level.SOPClassUID, level.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    level.Modality, level.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    level.DimensionOrganizationType = "TILED_FULL"
    level.TotalPixelMatrixRows, level.TotalPixelMatrixColumns = pixels.shape[:2]
    level.Rows = level.Columns = tile_px
    level.SamplesPerPixel, level.PlanarConfiguration, level.PixelRepresentation = 3, 0, 0
    level.PhotometricInterpretation = "YBR_FULL_422" if jpeg else "RGB"
    level.BitsAllocated, level.BitsStored, level.HighBit = 8, 8, 7
    level.SharedFunctionalGroupsSequence = [_spacing(mpp)]
    frames = _frames(pixels, tile_px)
    level.NumberOfFrames = len(frames)
    level.PixelData = encapsulate([_jpeg(frame) for frame in frames]) if jpeg else b"".join(f.tobytes() for f in frames)
    level["PixelData"].VR = "OB"
    return level


def _spacing(mpp: float) -> Dataset:
    measures, group = Dataset(), Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    group.PixelMeasuresSequence = [measures]
    return group


def _frames(pixels: np.ndarray, tile_px: int) -> list[np.ndarray]:
    """The tiles row by row, the last ones filled with white."""
    rows, cols = (-(-side // tile_px) for side in pixels.shape[:2])
    beyond = ((0, rows * tile_px - pixels.shape[0]), (0, cols * tile_px - pixels.shape[1]), (0, 0))
    padded = np.pad(pixels, beyond, constant_values=255)
    return [padded[r * tile_px :, c * tile_px :][:tile_px, :tile_px] for r in range(rows) for c in range(cols)]


def _jpeg(tile: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(tile)).save(buffer, "JPEG", quality=95, subsampling="4:2:2")
    return buffer.getvalue()

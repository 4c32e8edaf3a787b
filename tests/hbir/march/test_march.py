"""Marches: stock files, files of a user, and what is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from hbir.errors import BackendError
from hbir.march import CONFIDENCES, MARCHES, March, load_march, march_from_values, march_values, sources

ENTRY = 'cores = {{ value = {}, source = "mine", confidence = "invented" }}\n'


@pytest.mark.parametrize("name", MARCHES)
def test_every_number_of_a_stock_march_has_a_source(name: str) -> None:
    rows = sources(name)
    assert [row.key for row in rows] == [field.name for field in fields(March)]
    assert all(row.source and row.confidence in CONFIDENCES for row in rows)
    assert load_march(name).name == name


def test_published_facts() -> None:
    facts = {m.name: (m.chip, m.cores, m.l2m_bytes, m.io_alignment) for m in map(load_march, MARCHES)}
    l2m = 24 << 20
    assert facts == {
        "nash-e": ("J6E", 1, 0, 32),
        "nash-m": ("J6M", 1, 0, 32),
        "nash-p": ("J6P", 4, l2m, 64),
        "nash-h": ("J6H", 3, l2m, 64),
        "bayes": ("J5", 2, 0, 32),
    }
    assert [name for name in MARCHES if load_march(name).has_float_results] == ["nash-p", "nash-h"]


def test_published_limits_of_bayes() -> None:
    march = load_march("bayes")
    assert (march.conv_weight_types, march.matmul_types) == (("int8",), ("int8",))
    assert march.conv_output_types == ("int8", "int16", "int32") and march.vector_types == ("int8", "int16")
    assert (march.int16_accumulator_bits, march.max_kernel_elements, march.max_dilated_stride) == (32, 65_534, 1)
    # What decides over the cycles of a report is not published, and says so.
    known = {row.key: row.confidence for row in sources("bayes")}
    assert known["cores"] == known["int16_accumulator_bits"] == "vendor-doc"
    assert known["ddr_bytes_per_second"] == known["l1m_bytes"] == known["vector_int8_elements_per_cycle"] == "invented"
    assert "measured" not in known.values()


def test_values_round_trip() -> None:
    for name in MARCHES:
        march = load_march(name)
        assert march_from_values(march_values(march)) == march


def test_binaries_written_before_a_number_was_told_apart_mean_what_it_was() -> None:
    added = ("conv_weight_types", "matmul_types", "int16_accumulator_bits", "max_dilated_stride", "max_kernel_elements")
    for name in MARCHES:
        march = load_march(name)
        older = {key: value for key, value in march_values(march).items() if key not in added}
        assert (march_from_values(older) == march) == (name != "bayes")


def test_a_users_file_states_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('name = "mine"\nbase = "nash-p"\n' + ENTRY.format(2))
    assert load_march(path) == replace(load_march("nash-p"), name="mine", cores=2)
    assert load_march(str(path)).cores == 2


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("name = ", "HB0503", "TOML"),
        ('name = "mine"\n', "HB0505", "chip"),
        ('base = "nash-x"\n', "HB0501", "nash-x"),
        ('base = "nash-e"\nwheels = 4\n', "HB0504", "wheels"),
        ('base = "nash-e"\ncores = 2\n', "HB0506", "cores"),
        ('base = "nash-e"\n' + ENTRY.format('"two"'), "HB0506", "an integer"),
        ('base = "nash-e"\n' + ENTRY.format("true"), "HB0506", "an integer"),
        ('base = "nash-e"\n' + ENTRY.format("2").replace("invented", "guessed"), "HB0506", "confidence"),
        ('base = "nash-e"\n' + ENTRY.format("0"), "HB0507", "cores = 0"),
        ('base = "nash-e"\n' + ENTRY.format("48").replace("cores", "tae_width"), "HB0507", "power of two"),
        ('base = "nash-e"\n' + ENTRY.format("64").replace("cores", "l2m_bytes"), "HB0507", "l2m_bytes_per_second"),
        ('base = "nash-e"\n' + ENTRY.format('["int4"]').replace("cores", "vector_types"), "HB0507", "int4"),
        ('base = "nash-e"\n' + ENTRY.format('["int4"]').replace("cores", "matmul_types"), "HB0507", "matmul_types"),
        ('base = "nash-e"\n' + ENTRY.format('["int4"]').replace("cores", "conv_weight_types"), "HB0507", "int4"),
        ('base = "nash-e"\n' + ENTRY.format("40").replace("cores", "int16_accumulator_bits"), "HB0507", "32 nor 48"),
        ('base = "nash-e"\n' + ENTRY.format("inf").replace("cores", "clock_hz"), "HB0507", "clock_hz"),
        # Hostile ones: each of these once ended in an exception of Python's own.
        ("x = " + "[" * 5000, "HB0503", "TOML"),
        (
            'base = "nash-e"\n' + ENTRY.format("1" + "0" * 400).replace("cores", "clock_hz"),
            "HB0506",
            "number of 1329 bits",
        ),
        ('base = "nash-e"\n' + ENTRY.format("1" + "0" * 400), "HB0506", "number of 1329 bits"),
        ('base = "nash-e"\ncores = 0x' + "f" * 5000, "HB0506", "number of 20000 bits"),
        ('base = "nash-e"\nname = 0x' + "f" * 5000, "HB0506", "number of 20000 bits"),
        ("base = 0x" + "f" * 5000, "HB0501", "number of 20000 bits"),
        (
            'base = "nash-e"\n' + ENTRY.format("0").replace("cores", "memory_alignment"),
            "HB0507",
            "memory_alignment = 0",
        ),
        ('base = "nash-e"\n' + "#" * (1 << 18), "HB0502", "bytes"),
        ("a." * 100_000 + "a = 1", "HB0503", "dots"),
        ("[" + "a." * 100_000 + "a]", "HB0503", "dots"),
    ],
)
def test_bad_files_are_refused_with_the_key(tmp_path: Path, text: str, code: str, words: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(BackendError) as caught:
        load_march(path)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BackendError) as caught:
        load_march("nash-z")
    assert caught.value.code == "HB0501"
    assert all(name in str(caught.value) for name in MARCHES)
    with pytest.raises(BackendError) as caught:
        load_march(tmp_path / "absent.toml")
    assert caught.value.code == "HB0502"

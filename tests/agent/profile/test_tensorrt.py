"""TensorRT calibration caches, well-formed and not."""

import struct

import pytest

from calidrift_agent import CalibrationProfile
from calidrift_agent._vocabulary import Instrument
from calidrift_agent.errors import ProfileError

HEADER = "TRT-8501-EntropyCalibration2"


@pytest.fixture
def read(tmp_path):
    def write_and_read(*lines, header=HEADER, end="\n"):
        path = tmp_path / "calibration.cache"
        path.write_bytes(end.join([header, *lines, ""]).encode())
        return CalibrationProfile.from_tensorrt_cache(path)

    return write_and_read


def bits(value):
    return struct.pack("!f", value).hex()


def test_scales_are_the_steps_of_a_symmetric_quantizer(read):
    """The first value stands in NVIDIA's forum with its meaning: 0.0179033577."""
    profile = read("relu46: 3c92aa10", f"pool2: {bits(0.5)}")
    bound = profile.points["relu46:output"].clip_bound
    assert bound.scale == pytest.approx(0.0179033577, rel=1e-8)
    assert (bound.qmin, bound.qmax, bound.zero_point, bound.dtype) == (-128, 127, 0, "int8")
    pool = profile.points["pool2:output"].clip_bound
    assert (pool.lo, pool.hi) == (-64.0, 63.5)
    assert profile.units == 0
    assert profile.instrument is Instrument.RANGE
    assert profile.unobserved == tuple(profile.points)
    assert CalibrationProfile.from_json(profile.to_json()) == profile


def test_names_may_hold_colons_spaces_and_slashes(read):
    names = ["Relu__5:0", "(Unnamed Layer* 48) [Constant]_output", "/block/conv1/Conv_output_0"]
    profile = read(*(f"{name}: 3c010a14" for name in names))
    assert list(profile.points) == [f"{name}:output" for name in names]


@pytest.mark.parametrize("header", [HEADER, "TRT-100900-MinMaxCalibration", "TRT-8XXX-Legacy"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_other_versions_algorithms_and_line_ends(read, header, end):
    assert list(read("a: 3c010a14", "", header=header, end=end).points) == ["a:output"]


def test_leading_zeros_may_be_missing_and_a_prefix_there(read):
    tiny = struct.unpack("!f", bytes.fromhex("00800000"))[0]
    points = read("a: 800000", "b: 0x3f800000").points
    assert points["a:output"].clip_bound.scale == tiny
    assert points["b:output"].clip_bound.scale == 1.0


def test_a_tensor_that_was_always_zero_has_no_range(read):
    points = read("a: 0", "b: 3c010a14", "c: 80000000").points
    assert [one.clip_bound is None for one in points.values()] == [True, False, True]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("no colon here", "line 2 .* must be a tensor's name"),
        ("a: 3c010a14ff", "line 2 .* eight hexadecimal digits"),
        ("a: 0.0179", "line 2 .* eight hexadecimal digits"),
        ("a:", "line 2 .* must be a tensor's name"),
        (": 3c010a14", "line 2 .* must be a tensor's name"),
        ("a: 7f800000", "line 2 .* scale inf"),
        ("a: 7fc00000", "line 2 .* scale nan"),
        ("a: bf800000", "line 2 .* scale -1.0"),
    ],
)
def test_a_malformed_line_is_named(read, line, problem):
    with pytest.raises(ProfileError, match=problem):
        read(line)


def test_a_tensor_named_twice(read):
    with pytest.raises(ProfileError, match=r"line 3 .* second scale for 'a'"):
        read("a: 3c010a14", "a: 3c010a15")


def test_no_range_at_all(read):
    with pytest.raises(ProfileError, match="holds no range"):
        read("a: 0")
    with pytest.raises(ProfileError, match="holds no range"):
        read()


@pytest.mark.parametrize("header", ["", "a: 3c010a14", "TRT", '{"a": 1}'])
def test_another_header(read, header):
    with pytest.raises(ProfileError, match="is no TensorRT calibration cache: it begins with"):
        read("a: 3c010a14", header=header)


def test_files_that_are_no_text_or_not_there(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(b"")
    with pytest.raises(ProfileError, match="begins with ''"):
        CalibrationProfile.from_tensorrt_cache(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="not a text"):
        CalibrationProfile.from_tensorrt_cache(path)
    for missing in (tmp_path / "nowhere", tmp_path, "a\0b"):
        with pytest.raises(ProfileError, match="cannot be read"):
            CalibrationProfile.from_tensorrt_cache(missing)
    with path.open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(ProfileError, match="larger than 64 MiB"):
        CalibrationProfile.from_tensorrt_cache(path)

"""Reads back what files_test.cpp wrote, with the packages that others read it with: read_back.py tensorboard|safetensors FOLDER."""
import sys
from pathlib import Path

kind, folder = sys.argv[1], Path(sys.argv[2])
try:
    if kind == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    else:
        import numpy
        from safetensors import safe_open
        from safetensors.numpy import save_file
except ImportError as error:
    print(f"skipped: {error}; scripts/setup.sh --tests installs it")
    sys.exit(77)

if kind == "tensorboard":
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    assert sorted(tags["scalars"]) == ["a", "loss/level"], tags
    # Steps 1 to 3 of the first file, of which the second begins anew with 3.
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("a")] == [(1, 0.5), (2, 1.5), (3, 30.0), (4, -2.0)], events.Scalars("a")
    assert [e.step for e in events.Scalars("loss/level")] == [1]
    image = events.Images("picture")[0]
    assert (image.width, image.height, image.step) == (3, 2, 4) and image.encoded_image_string.startswith(b"\x89PNG"), image
else:
    with safe_open(folder / "ours.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt", "who": "mlo"}, file.metadata()
        assert sorted(file.keys()) == ["empty", "flags", "matrix", "scalar", "whole"], file.keys()
        matrix = file.get_tensor("matrix")
        assert matrix.dtype == numpy.float32 and (matrix == numpy.arange(6).reshape(2, 3) / 4).all(), matrix
        assert file.get_tensor("scalar").shape == () and file.get_tensor("scalar") == 1e-300
        assert file.get_tensor("empty").shape == (0, 4)
        assert (file.get_tensor("whole") == [-5, 2**40]).all() and (file.get_tensor("flags") == [True, False, True]).all()
    save_file({"x": numpy.arange(4, dtype=numpy.float64) * 0.5, "y": numpy.array([[1, 2, 3]], dtype=numpy.int32)}, folder / "theirs.safetensors", metadata={"by": "python"})

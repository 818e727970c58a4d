"""What the displays share, and the conventions that all of them keep."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import pyplot as plt

import skboundary
from skboundary.display import _style
from skboundary.display._images import as_images, largest_change, side_by_side

DISPLAYS = [getattr(skboundary.display, name) for name in skboundary.display.__all__]


def constructors(display):
    return [name for name in vars(display) if name.startswith("from_")]


def test_displays_are_public():
    assert set(skboundary.display.__all__) == {
        name for name in skboundary.__all__ if name.endswith("Display")
    }


@pytest.mark.parametrize("display", DISPLAYS, ids=lambda d: d.__name__)
def test_signatures_follow_the_convention(display):
    plot = list(inspect.signature(display.plot).parameters.values())
    assert [p.name for p in plot[:3]] == ["self", "ax", "name"]
    assert all(p.kind is p.KEYWORD_ONLY for p in plot[2:])
    data = list(inspect.signature(display.__init__).parameters.values())[1:]
    assert all(p.kind is p.KEYWORD_ONLY for p in data)
    given = {p.name: object() for p in data}
    assert vars(display(**given)) == given  # data only
    assert constructors(display)


def test_without_matplotlib_the_error_says_how_to_install_it():
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "import skboundary.display as d\n"
        "for name in d.__all__:\n"
        "    display = getattr(d, name)\n"
        "    for method in [m for m in vars(display) if m.startswith('from_')]:\n"
        "        try:\n"
        "            getattr(display, method)(None, None, None)\n"
        "        except ImportError as error:\n"
        "            assert \"pip install 'skboundary[plot]'\" in str(error), error\n"
        "            assert f'{name}.{method}' in str(error), error\n"
        "        except TypeError:  # fewer arguments\n"
        "            continue\n"
        "        else:\n"
        "            raise AssertionError(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_hundred_classes_differ_in_color_or_shape():
    looks = {(_style.class_color(c), _style.class_marker(c)) for c in range(100)}
    assert len(looks) == 100
    assert len({_style.class_color(c) for c in range(10)}) == 10
    assert len({_style.class_marker(c) for c in range(10)}) == 10


def test_styles_are_merged():
    assert _style.line_style({"linewidth": 1, "color": "k"}, {"lw": 3}) == {
        "linewidth": 3,
        "color": "k",
    }
    with pytest.raises(TypeError, match="aliases"):
        _style.line_style({}, {"lw": 3, "linewidth": 2})
    two = [{"color": "r"}, {"color": "b"}]
    assert _style.line_styles(two, {"lw": 2})[1] == {"color": "b", "linewidth": 2}
    assert _style.line_styles(two, [{}, {"c": "g"}]) == [{"color": "r"}, {"color": "g"}]
    with pytest.raises(ValueError, match="1 entries, but there are 2 curves"):
        _style.line_styles(two, [{}])


def test_axes_are_made_taken_or_split():
    axes, bounding = _style.many_axes(None, 2, 3, (4, 3))
    assert axes.shape == (2, 3) and bounding is None
    figure, given = plt.subplots(2, 2)
    axes, bounding = _style.many_axes(given, 1, 4, (4, 3))
    assert axes.shape == (1, 4) and axes[0, 3] is given[1, 1] and bounding is None
    axes, bounding = _style.many_axes(given[0, 0], 3, 1, (4, 3))
    assert bounding is given[0, 0] and not bounding.axison and axes[2, 0].figure is figure
    with pytest.raises(ValueError, match="4 axes, but 3 are drawn"):
        _style.many_axes(given, 3, 1, (4, 3))
    with pytest.raises(ValueError, match="placed by hand"):
        _style.many_axes(figure.add_axes([0, 0, 1, 1]), 3, 1, (4, 3))


@pytest.mark.parametrize("shape", [(2, 5), (1, 2, 5), (2, 5, 1), (3, 2, 5), (2, 5, 3)])
def test_images_of_any_layout(shape):
    rng = np.random.default_rng(0)
    X = rng.random((4, *shape))
    images = as_images(X.reshape(4, -1), shape)
    np.testing.assert_array_equal(images, as_images(X))
    assert images.shape == (4, 2, 5, 3) if 3 in shape else (4, 2, 5)
    joined, centers = side_by_side(images, gap=2)
    assert joined.shape[:2] == (2, 4 * 5 + 3 * 2)
    for image, center in zip(images, centers):
        start = round(center - 2)
        np.testing.assert_array_equal(joined[:, start : start + 5], image)


def test_what_is_no_image_is_refused():
    assert as_images(np.zeros((2, 6))) is None
    with pytest.raises(ValueError, match="holds 4 values, but a sample has 6"):
        as_images(np.zeros((2, 6)), (2, 2))
    with pytest.raises(ValueError, match="not that of an image"):
        as_images(np.zeros((2, 2, 5, 5)))


def test_the_largest_change_keeps_its_sign():
    first, last = np.zeros((1, 1, 2, 3)), np.array([[[[1, -3, 2], [0, 0.5, 0.2]]]])
    np.testing.assert_array_equal(largest_change(first, last), [[[-3, 0.5]]])

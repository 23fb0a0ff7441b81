"""ECGs on paper: every length on the page is the millimetres it stands for, and nothing recorded is hidden."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from data_pipelines.paper.draw import draw_ecg
from data_pipelines.paper.layout import LAYOUTS
from data_pipelines.paper.page import MM_PER_INCH, broken_lines, save_png
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.signals.lead_algebra import twelve_leads
from ecgjax.leads import twelve_leads as twelve_leads_of_the_model

RATE = 250


def random_signal(seconds=10.0, *, seed=0, size_uv=300):
    shape = (round(seconds * RATE), 8)
    return np.random.default_rng(seed).integers(-size_uv, size_uv, shape, dtype=np.int16)


def artists(figure, name):
    return [artist for artist in figure.axes[0].get_children() if artist.get_gid() == name]


def on_page(figure, artist, points=None):
    """Returns points of an artist in millimetres from the lower left corner of the figure as it is rendered."""
    points = artist.get_path().vertices if points is None else points
    return figure.axes[0].transData.transform(points) / figure.dpi * MM_PER_INCH


def trace(figure, name, position=0):
    artist = artists(figure, name)[position]
    return on_page(figure, artist)


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def zero_line(figure, row):
    return trace(figure, "calibration", row)[0, 1]


def test_twelve_leads_equal_the_models():
    stored = np.random.default_rng(0).integers(-32768, 32768, (3, 500, 8), dtype=np.int16)
    millivolts = stored.astype(np.float32) * np.float32(1e-3)
    for ecg in (stored.astype(np.float32), millivolts):
        np.testing.assert_array_equal(twelve_leads(ecg), np.asarray(twelve_leads_of_the_model(jnp.asarray(ecg))))


def test_twelve_leads_are_exact_to_half_a_microvolt():
    stored = np.array([[32767, -32768, 1, 2, 3, 4, 5, 6]], np.int16)
    derived = twelve_leads(stored.astype(np.float64))[0]
    assert derived.tolist() == [32767, -32768, -65535, 0.5, 49151, -49151.5, 1, 2, 3, 4, 5, 6]


def test_twelve_leads_refuse_what_would_overflow_or_has_other_leads():
    with pytest.raises(TypeError, match="int16"):
        twelve_leads(np.zeros((4, 8), np.int16))
    with pytest.raises(ValueError, match="8 leads"):
        twelve_leads(np.zeros((4, 12)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_lead_stands_where_it_was_recorded_and_as_high_as_it_was(layout):
    signal = random_signal()
    figure = draw_ecg(signal, sampling_rate_hz=RATE, layout=layout)
    millivolts = twelve_leads(signal.astype(np.float64)) / 1000
    millivolts -= np.median(millivolts, axis=0)
    for row, leads in enumerate(LAYOUTS[layout].rows):
        begin = trace(figure, f"lead {leads[0]}")[0, 0]
        for column, lead in enumerate(leads):
            points = trace(figure, f"lead {lead}")
            start = round((points[0, 0] - begin) / 25 * RATE)
            assert start == column * len(signal) // len(leads)
            samples = np.arange(start, start + len(points))
            np.testing.assert_allclose(points[:, 0], begin + 25 * samples / RATE, atol=1e-6)
            expected = zero_line(figure, row) + 10 * millivolts[samples, STANDARD_LEADS.index(lead)]
            np.testing.assert_allclose(points[:, 1], expected, atol=1e-6)
    assert sorted(lead for leads in LAYOUTS[layout].rows for lead in leads) == sorted(STANDARD_LEADS)


def test_the_rhythm_strip_is_lead_ii_from_start_to_end():
    signal = random_signal()
    figure = draw_ecg(signal, sampling_rate_hz=RATE)
    points = trace(figure, "rhythm II")
    lead = signal[:, STORED_LEADS.index("II")] / 1000
    np.testing.assert_allclose(points[:, 1] - zero_line(figure, 3), 10 * (lead - np.median(lead)), atol=1e-6)
    assert points[-1, 0] - points[0, 0] == pytest.approx(25 * (10 - 1 / RATE))


def test_a_millivolt_is_10_mm_and_a_second_25_mm():
    signal = np.zeros((10 * RATE, 8), np.int16)
    signal[RATE : 2 * RATE, STORED_LEADS.index("II")] = 1000
    points = trace(draw_ecg(signal, sampling_rate_hz=RATE), "rhythm II")
    high = points[points[:, 1] > points[0, 1] + 5]
    assert np.ptp(high[:, 0]) == pytest.approx(25 * (1 - 1 / RATE))
    assert high[0, 1] - points[0, 1] == pytest.approx(10)


def test_the_calibration_pulse_is_5_by_10_mm_on_lines_of_the_large_boxes():
    figure = draw_ecg(random_signal(), sampling_rate_hz=RATE)
    pulses = artists(figure, "calibration")
    assert len(pulses) == 4
    corner = on_page(figure, None, artists(figure, "large boxes")[0].get_segments()[0])[0]
    for pulse in pulses:
        points = on_page(figure, pulse)
        raised = points[points[:, 1] > points[0, 1] + 1]
        assert np.ptp(raised[:, 0]) == pytest.approx(0.2 * 25)
        assert raised[0, 1] - points[0, 1] == pytest.approx(10)
        large_boxes = (np.array([raised[0, 0], points[0, 1]]) - corner) / 5
        np.testing.assert_allclose(large_boxes, np.rint(large_boxes), atol=1e-6)


@pytest.mark.parametrize(("name", "step"), [("small boxes", 1.0), ("large boxes", 5.0)])
def test_boxes_of_the_grid_are_1_and_5_mm_and_cover_the_traces(name, step):
    figure = draw_ecg(random_signal(), sampling_rate_hz=RATE)
    lines = np.array([on_page(figure, None, line) for line in artists(figure, name)[0].get_segments()])
    for axis in (0, 1):
        at = np.unique(np.round(lines[lines[:, 0, axis] == lines[:, 1, axis], 0, axis], 6))
        np.testing.assert_allclose(np.diff(at), step, atol=1e-5)
        assert at[-1] - at[0] == pytest.approx((265, 160)[axis])
    points = trace(figure, "rhythm II")
    assert lines[..., 0].min() < points[:, 0].min()
    assert points[:, 0].max() <= lines[..., 0].max()


def test_the_png_is_a4_and_shows_the_boxes_and_the_step_to_the_pixel(tmp_path):
    signal = np.zeros((10 * RATE, 8), np.int16)
    signal[5 * RATE :, STORED_LEADS.index("II")] = 1000
    figure = draw_ecg(signal, sampling_rate_hz=RATE, pixels_per_mm=8)
    save_png(figure, tmp_path / "a4.png")
    with Image.open(tmp_path / "a4.png") as image:
        assert image.size == (297 * 8, 210 * 8)
        # PNG keeps pixels per metre, a whole number.
        assert image.info["dpi"] == pytest.approx((8 * MM_PER_INCH,) * 2, rel=1e-4)
        pixels = np.asarray(image.convert("L"))
    # Rows of the picture count from the top. The median of the lead lies at half the step.
    points = trace(figure, "rhythm II")
    height = {}
    for second in (4.0, 6.0):
        column = round(8 * (points[0, 0] + 25 * second)) + 3  # Between lines of the small boxes.
        strip = pixels[-(14 + 40) * 8 : -14 * 8, column]
        height[second] = np.flatnonzero(strip < 80).mean()
    assert height[4.0] - height[6.0] == pytest.approx(10 * 8, abs=0.5)


@pytest.mark.parametrize("seconds", [2.0, 7.2, 10.0, 12.004, 40.0])
def test_pages_of_any_length_are_whole_millimetres_and_pixels(seconds, tmp_path):
    figure = draw_ecg(random_signal(seconds), sampling_rate_hz=RATE, pixels_per_mm=3)
    save_png(figure, tmp_path / "page.png")
    grid_mm = 5 * np.ceil((15 + 25 * seconds) / 5 - 1e-9)
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (3 * (max(grid_mm, 130) + 32), 3 * 210)
    points = trace(figure, "rhythm II")
    np.testing.assert_allclose(np.diff(points[:, 0]), 25 / RATE, atol=1e-6)
    assert len(points) == round(seconds * RATE)


@pytest.mark.parametrize(("layout", "height_mm"), [("3x4", 210), ("6x2", 230), ("12x1", 290)])
def test_pages_are_as_high_as_their_rows_ask_for(layout, height_mm):
    figure = draw_ecg(random_signal(), sampling_rate_hz=RATE, layout=layout, title=("Record 1", "Patient 1"))
    np.testing.assert_allclose(figure.get_size_inches() * MM_PER_INCH, (297, height_mm), rtol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding_is_hatched_and_has_no_trace(layout):
    signal = random_signal()
    start, count = round(1.2 * RATE), round(7.5 * RATE)
    signal[:start] = signal[start + count :] = 9000
    figure = draw_ecg(signal, sampling_rate_hz=RATE, valid_start=start, valid_samples=count, layout=layout)
    for row, leads in enumerate(LAYOUTS[layout].strips):
        is_rhythm = row == len(LAYOUTS[layout].rows)
        drawn = [trace(figure, f"{'rhythm' if is_rhythm else 'lead'} {lead}") for lead in leads]
        x = np.concatenate(drawn)[:, 0]
        begin = trace(figure, "calibration", row)[-1, 0] + 2.5
        assert x.min() == pytest.approx(begin + 1.2 * 25)
        assert x.max() == pytest.approx(begin + 25 * (8.7 - 1 / RATE))
    # Padding does not move the zero line, and the width hatched is what was not recorded, in every row.
    hatched = artists(figure, "padding")
    assert all(box.get_hatch() for box in hatched)
    total = sum(box.get_width() for box in hatched)
    assert total == pytest.approx(25 * 2.5 * len(LAYOUTS[layout].strips))
    medians = np.median(twelve_leads(signal[start : start + count].astype(np.float64)), axis=0) / 1000
    first = trace(figure, "lead V1")[0, 1] if layout == "12x1" else trace(figure, "lead I")[0, 1]
    lead, row = ("V1", 6) if layout == "12x1" else ("I", 0)
    expected = signal[start, STORED_LEADS.index(lead)] / 1000 - medians[STANDARD_LEADS.index(lead)]
    assert first - zero_line(figure, row) == pytest.approx(10 * expected)
    assert any("recorded 1.20 to 8.70 s of 10.00 s" in text for text in texts(figure))


def test_a_segment_that_was_never_recorded_is_hatched_whole():
    figure = draw_ecg(random_signal(), sampling_rate_hz=RATE, valid_start=0, valid_samples=6 * RATE)
    assert artists(figure, "lead V1")
    assert not artists(figure, "lead V4")
    assert "not recorded" in texts(figure)


def test_leads_that_leave_their_row_are_drawn_whole_and_named():
    signal = random_signal()
    v3 = STORED_LEADS.index("V3")
    signal[6 * RATE, v3] = 30000
    signal[1 * RATE, STORED_LEADS.index("V4")] = 30000  # Where another lead is shown.
    figure = draw_ecg(signal, sampling_rate_hz=RATE)
    median = np.median(signal[:, v3])
    low = signal[5 * RATE : round(7.5 * RATE) + 1, v3].min()
    [said] = [text for text in texts(figure) if text.startswith("Beyond")]
    said = said.replace("\N{NO-BREAK SPACE}", " ")
    assert f"V3 (−{(median - low) / 1000:.2f} to +{(30000 - median) / 1000:.2f} mV)" in said
    assert "V4" not in said
    assert trace(figure, "lead V3")[:, 1].max() - zero_line(figure, 2) == pytest.approx((30000 - median) / 100)
    quiet = draw_ecg(random_signal(), sampling_rate_hz=RATE)
    assert not any(text.startswith("Beyond") for text in texts(quiet))


def test_the_page_says_its_scale_rate_processing_and_that_medians_are_moved():
    said = " ".join(texts(draw_ecg(random_signal(), sampling_rate_hz=RATE, recording_note="low-pass 40 Hz")))
    for part in ("25 mm/s", "10 mm/mV", "250 Hz", "low-pass 40 Hz", "median of each lead drawn at its zero line"):
        assert part in said
    names = texts(draw_ecg(random_signal(), sampling_rate_hz=RATE, layout="6x2"))
    assert [name for name in names if name in STANDARD_LEADS] == [
        *("I", "V1", "II", "V2", "III", "V3", "aVR", "V4", "aVL", "V5", "aVF", "V6")
    ]


def test_simulated_pages_say_so_and_others_do_not():
    assert texts(draw_ecg(random_signal(), sampling_rate_hz=RATE, simulated=True)).count("SIMULATED") == 2
    assert "SIMULATED" not in texts(draw_ecg(random_signal(), sampling_rate_hz=RATE))


def test_long_titles_are_broken_and_the_page_grows():
    label = "diagnostic: " + ", ".join(f"CODE{number}" for number in range(300))
    figure = draw_ecg(random_signal(), sampling_rate_hz=RATE, title=("Record $1$ of a_b", "Patient", label))
    assert "Record $1$ of a_b" in texts(figure)
    assert " ".join(text for text in texts(figure) if "CODE" in text) == label
    height = figure.get_size_inches()[1] * MM_PER_INCH
    assert height > 210 + 20
    assert height == pytest.approx(round(height))
    renderer = figure.canvas.get_renderer()
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width - 15 * 8
        assert box.y0 >= 0


def test_lines_break_between_words_only():
    assert broken_lines("", width_mm=50, size=8) == []
    assert broken_lines("one  two", width_mm=50, size=8) == ["one two"]
    assert broken_lines("8\N{NO-BREAK SPACE}mV " * 3, width_mm=1, size=8) == ["8\N{NO-BREAK SPACE}mV"] * 3
    assert broken_lines("one " + "x" * 90 + " two", width_mm=20, size=8) == ["one", "x" * 90, "two"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal_uv": np.zeros((100, 12), np.int16)}, r"int16\[time, 8\]"),
        ({"signal_uv": np.zeros((100, 8), np.float32)}, "float32"),
        ({"signal_uv": np.zeros((0, 8), np.int16)}, "of 0"),
        ({"valid_start": 50, "valid_samples": 51}, "50 to 101"),
        ({"valid_start": -1}, "-1 to 100"),
        ({"valid_samples": 0}, "0 to 0"),
        ({"layout": "4x3"}, "3x4, 6x2, 12x1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        draw_ecg(**({"signal_uv": np.zeros((100, 8), np.int16), "sampling_rate_hz": 100} | changes))

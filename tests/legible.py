"Reads a drawn figure as an eye does: where each text lies, and how large it is."
from matplotlib.text import Text


def drawn_texts(fig):
    "Every text that is seen in the figure, with its box in pixels."
    fig.draw_without_rendering()
    hidden = set()
    for ax in fig.findobj(lambda o: hasattr(o, "xaxis")):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            out = 1e-9*(high - low)
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                seen = ax.axison and ax.get_visible() and axis.get_visible()
                seen = seen and low - out <= tick.get_loc() <= high + out
                if not seen: hidden |= {tick.label1, tick.label2}
            if not (ax.axison and ax.get_visible()): hidden |= {axis.label, axis.offsetText}
    texts = [o for o in fig.findobj(Text) if o.get_visible() and o.get_text().strip() and o not in hidden]
    return [(o, Text.get_window_extent(o)) for o in texts]    # of an annotation: without its arrow


def assert_legible(fig, least=8):
    "No text below 8 points, none cut off, none upon another."
    found = drawn_texts(fig)
    assert found
    whole = fig.bbox.padded(1)
    for text, box in found:
        assert text.get_fontsize() >= least, (text.get_text(), text.get_fontsize())
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1, \
            (text.get_text(), box, whole)
    boxes = [(text, box.padded(-1)) for text, box in found]    # a pixel of the box is no ink
    for i, (a, one) in enumerate(boxes):
        for b, two in boxes[:i]:
            assert not one.overlaps(two), f"{a.get_text()!r} lies on {b.get_text()!r}"

"""Every data set against its description, the course's files where they lie beside the checkout, and bad input."""
import http.server
import tarfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fastcourse.core import InputError
from fastcourse.data import (Digits, ab_cC, bent_line, codes, cubic, digits37, dnnex, greetings, hello, human_numbers,
                             iris,
                             letters, logit_step, mnist37, next_token_pairs, number_words, one_hot, overparameterized,
                             published, pure_noise, strange_curve, vocabulary)

SAMPLES = [cubic, bent_line, pure_noise, overparameterized, logit_step, strange_curve, dnnex]


def shared(name: str) -> Path:
    "A file of the shared data folder beside the checkout; the test is skipped where there is none."
    path = Path(__file__).resolve().parents[2]/"shared"/"data"/name
    if not path.exists(): pytest.skip(f"no shared/data/{name} beside the checkout")
    return path


# Published figures

def test_published_rows():
    figures = {row: published(row)["figures"] for row in ("2.8", "2.9", "3.1", "4.4", "4.5", "4.10")}
    assert figures["2.8"] == {"train_accuracy": 0.9994, "test_accuracy": 0.9897}
    assert figures["2.9"] == {"train_accuracy": 0.9995}
    assert pd.DataFrame(**figures["3.1"]).loc["c", "out_c"] == -6.0603
    assert figures["4.4"]["train_loss"][0] == 1.762846 and figures["4.4"]["valid_loss"][-1] == 0.884034
    assert figures["4.5"]["h_T"] == [-0.2350, -0.1559, -0.1093, 0.2682]
    assert figures["4.10"]["accuracy"] == 0.9993
    assert all(published(row)["source"] == f"LESSONS {row}" for row in figures)


def test_published_is_a_fresh_copy():
    published("4.4")["figures"]["train_loss"].clear()
    assert len(published("4.4")["figures"]["train_loss"]) == 10


@pytest.mark.parametrize("row", ["1.1", 3.1, None, ""])
def test_published_unknown_row(row):
    with pytest.raises(InputError, match="no published figures"): published(row)


# Numbers

@pytest.mark.parametrize("f", SAMPLES)
def test_samples_shape_type_seed(f):
    d = f()
    n = 1000 if f is overparameterized else 100 if f in (cubic, bent_line, pure_noise) else 2000
    assert d.x.shape == (n, 3 if f is cubic else 1) and d.y.shape == d.truth.shape == (n, 1)
    assert {o.dtype for o in d} == {torch.float32} and all(o.isfinite().all() for o in d)
    for a, b in zip(d, f()): torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(f(seed=1).y, d.y)
    assert f(n=7).y.shape == (7, 1) and f(n=1).y.shape == (1, 1)


@pytest.mark.parametrize("f", SAMPLES)
def test_samples_leave_the_global_state_alone(f):
    before = torch.get_rng_state()
    f()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("f", [*SAMPLES, ab_cC])
@pytest.mark.parametrize("kw", [dict(n=0), dict(n=-3), dict(n=2.0), dict(n="5"), dict(n=True), dict(seed=-1),
                                dict(seed=None)])
def test_samples_bad_input(f, kw):
    with pytest.raises(InputError, match=f"{next(iter(kw))}="): f(**kw)


def test_cubic_is_the_curve():
    x, y, truth = cubic()
    torch.testing.assert_close(x, x[:, :1]**torch.tensor([1., 2., 3.]))
    torch.testing.assert_close(truth, 1 + 4*x[:, :1] + 3*x[:, 1:2] - 2*x[:, 2:], rtol=1e-5, atol=1e-5)
    torch.manual_seed(43052)
    torch.testing.assert_close(x[:, 0], torch.randn(100).sort().values, rtol=0, atol=0)


def test_bent_line_slopes():
    x, y, truth = bent_line()
    torch.testing.assert_close(truth, torch.where(x < 0, x, 3.5*x), rtol=0, atol=0)
    torch.manual_seed(43052)
    torch.testing.assert_close(y - truth, 0.3*torch.randn(100, 1), rtol=0, atol=1e-6)


def test_overparameterized_line():
    x, y, truth = overparameterized()
    slope, bias = np.polyfit(x[:, 0].double(), y[:, 0].double(), 1)
    assert abs(slope - 6.28) < 4/np.sqrt(1000/3) and abs(bias - 3.14) < 4/np.sqrt(1000)   # four standard errors
    assert -1 < x.min() < -0.99 and 0.99 < x.max() < 1


def test_logit_step_pieces():
    x, y, truth = (o[:, 0].double() for o in logit_step())
    u = torch.where(x < -0.2, 15*x + 6, torch.where(x < 0.4, -1., -3.))
    torch.testing.assert_close(truth, u.sigmoid(), rtol=1e-5, atol=1e-7)
    for piece in (x < -0.2, (x >= -0.2) & (x < 0.4), x >= 0.4):
        p = truth[piece]
        assert abs(y[piece].mean() - p.mean()) < 4*(p*(1-p)).sum().sqrt()/len(p)


def test_dnnex_against_the_file():
    file = pd.read_csv(shared("dnnex.csv"))
    x, y, prob = (o[:, 0].double().numpy() for o in dnnex())
    np.testing.assert_allclose(x, file.x, rtol=0, atol=2e-7)
    np.testing.assert_allclose(prob, file.prob, rtol=0, atol=1e-6)  # float32; another processor's sigmoid: 2.4e-7
    assert set(file.y) == set(y) == {0., 1.}


# Letters and words

def test_ab_cC_equals_the_file():
    file = pd.read_csv(shared("ab_cC.csv"))
    df = next_token_pairs(ab_cC())
    assert len(df) == 149
    assert df.x.tolist() == file.txt_x.tolist() and df.y.tolist() == file.txt_y.tolist()


def test_human_numbers_equals_the_file():
    pd.testing.assert_frame_equal(human_numbers(), pd.read_csv(shared("human_numbers_100.csv")))


def test_iris_equals_the_file():
    file = pd.read_csv(shared("iris.csv"))
    pd.testing.assert_frame_equal(iris().astype({"Species": file.Species.dtype}), file)


@pytest.mark.parametrize("text,n,vocab", [
    (letters("abc"), 300, list("abc")), (letters("abcd"), 400, list("abcd")), (letters("abcabC"), 600, list("Cabc")),
    (ab_cC(), 150, list("abcC")), (number_words(), 999, [",", "one", "two", "three", "four", "five"]),
    (hello(), 1000, list("!?hielo")), (greetings(), 18, list("!?hi"))])
def test_texts(text, n, vocab):
    assert len(text) == n and vocabulary(text) == vocab
    assert codes(text).tolist() == [vocab.index(o) for o in text]
    df = next_token_pairs(text)
    assert len(df) == n-1 and df.x.tolist() == list(text)[:-1] and df.y.tolist() == list(text)[1:]
    # every slice keeps the codes
    assert codes(df.y[-3:]).tolist() == [vocab.index(o) for o in list(text)[-3:]]
    x = one_hot(df.x)
    assert x.shape == (n-1, len(vocab)) and x.dtype == torch.float32
    torch.testing.assert_close(x.argmax(1), codes(df.x))


def test_words_in_order():
    assert list(number_words(12)) == ["one", ",", "two", ",", "three", ",", "four", ",", "five", ",", "one", ","]
    assert len(number_words(1)) == 1


def test_pairs_from_plain_input():
    for text in ("abca", list("abca"), pd.Series(list("abca")), np.array(list("abca"))):
        df = next_token_pairs(text)
        assert df.x.tolist() == list("abc") and codes(df.y).tolist() == [1, 2, 0]


def test_one_hot_shapes():
    c = torch.tensor([[0, 2], [1, 1]])
    assert one_hot(c).shape == (2, 2, 3) and one_hot(c, 5).shape == (2, 2, 5)
    torch.testing.assert_close(one_hot(c, 5).argmax(-1), c)
    assert one_hot([0, 1]).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("f,message", [
    (lambda: next_token_pairs(""), "0 tokens"), (lambda: next_token_pairs("a"), "1 tokens"),
    (lambda: next_token_pairs(5), "int"),
    (lambda: next_token_pairs(pd.DataFrame({"a": ["b"]})), "DataFrame"),
    (lambda: next_token_pairs(["a", 3]), "strings only"),
    (lambda: codes("abz", "abc"), "'z'"), (lambda: codes("ab", "abb"), "twice"), (lambda: codes(None), "NoneType"),
    (lambda: codes(pd.Series(["a", None], dtype="category")), "number 1"),
    (lambda: one_hot(torch.tensor([0.])), "float32"), (lambda: one_hot(torch.tensor([3]), 3), "n=3"),
    (lambda: one_hot(torch.tensor([-1, 0])), "-1"), (lambda: one_hot(torch.tensor([True])), "bool"),
    (lambda: one_hot(torch.tensor([1]), 0), "n=0"), (lambda: one_hot(torch.zeros(0, dtype=torch.long)), "no codes"),
    (lambda: letters(""), "pattern"), (lambda: letters(3), "pattern=3"), (lambda: letters("a", 0), "n=0"),
    (lambda: number_words(0), "n=0"), (lambda: hello(1.5), "n=1.5"), (lambda: greetings(0), "n=0"),
    (lambda: human_numbers(-1), "n=-1")])
def test_text_bad_input(f, message):
    with pytest.raises(InputError, match=message): f()


# Digits

def test_digits37():
    d = digits37()
    assert [tuple(o.shape) for o in d] == [(273, 64), (273, 1), (89, 64), (89, 1)]
    # no test picture is in the training set
    train = {tuple(o) for o in d.x.tolist()}
    assert not any(tuple(o) in train for o in d.x_test.tolist())
    assert set(d.y.flatten().tolist()) == set(d.y_test.flatten().tolist()) == {0., 1.}


def test_mnist37_from_the_shared_archive():
    d = mnist37(shared("mnist_png_37.tgz"))
    assert [tuple(o.shape) for o in d] == [(1400, 784), (1400, 1), (638, 784), (638, 1)]
    assert (d.x.min(), d.x.max()) == (0, 255) and (d.y.sum(), d.y_test.sum()) == (700, 328)


@pytest.fixture
def archive(tmp_path):
    "A small archive of the layout of MNIST, and its digits."
    from PIL import Image
    for k, part in enumerate(("training/3", "training/7", "testing/3", "testing/7")):
        folder = tmp_path/"mnist_png"/part
        folder.mkdir(parents=True)
        for i in (9, 10, 100): Image.fromarray(np.full((4, 4), 2*i + k, np.uint8)).save(folder/f"{i}.png")
    with tarfile.open(tmp_path/"mnist_png.tgz", "w:gz") as t: t.add(tmp_path/"mnist_png", "mnist_png")
    return tmp_path


def test_mnist37_folder_and_archive_agree(archive):
    for a, b in zip(mnist37(archive/"mnist_png"), mnist37(str(archive/"mnist_png.tgz"))):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    # files in the order of their numbers
    x = mnist37(archive/"mnist_png").x[:3, 0]
    assert (x[1:] > x[:-1]).all()


@pytest.fixture
def fastai_home(tmp_path, monkeypatch):
    "A folder of its own for fastai's downloads; fastai remembers the last one, so that is forgotten before and after."
    from fastai.data.external import fastai_cfg
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path/"home"))
    fastai_cfg.cache_clear()
    yield tmp_path/"home"
    fastai_cfg.cache_clear()


def test_mnist37_downloads_once_and_counts(archive, monkeypatch, fastai_home):
    "The download goes through fastai's cache; a copy that is not whole is refused, with the way out."
    import fastai.data.external as external
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args): super().__init__(*args, directory=str(archive))
        def do_GET(self): asked.append(self.path); super().do_GET()
        def log_message(self, *args): pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setattr(external.URLs, "MNIST", f"http://127.0.0.1:{server.server_port}/mnist_png.tgz")
        for _ in range(2):
            with pytest.raises(InputError, match=r"\(3, 3, 3, 3\).*6131.*not whole.*digits37"): mnist37()
        import fastcourse.data as data
        monkeypatch.setattr(data, "_full", (3, 3, 3, 3))
        for a, b in zip(mnist37(), mnist37(archive/"mnist_png")): torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert asked == ["/mnist_png.tgz"] and (fastai_home/"data"/"mnist_png").is_dir()   # once, then the cache
        monkeypatch.setattr(external.URLs, "MNIST", f"http://127.0.0.1:{server.server_port}/none.tgz")
        with pytest.raises(InputError, match="could not be downloaded.*404.*source=.*digits37") as e: mnist37()
        assert "\n" not in str(e.value)
    finally:
        server.shutdown()
        server.server_close()


def test_mnist37_without_network(fastai_home):
    with pytest.raises(InputError, match="could not be downloaded.*source=.*digits37") as e: mnist37()
    assert e.value.__suppress_context__ and "\n" not in str(e.value)   # one sentence, no chain of stack traces


def test_mnist37_bad_sources(archive):
    folder = archive/"mnist_png"
    with pytest.raises(InputError, match="no folder or archive"): mnist37(archive/"absent")
    (archive/"text.tgz").write_text("no archive")
    with pytest.raises(InputError, match="cannot be read"): mnist37(archive/"text.tgz")
    cut = archive/"cut.tgz"
    cut.write_bytes((archive/"mnist_png.tgz").read_bytes()[:400])
    with pytest.raises(InputError, match="cannot be read"): mnist37(cut)
    (folder/"training/3/9.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read"): mnist37(folder)
    from PIL import Image
    Image.new("L", (5, 5)).save(folder/"training/3/9.png")
    with pytest.raises(InputError, match="sizes"): mnist37(folder)
    for o in (folder/"testing/7").iterdir(): o.unlink()
    with pytest.raises(InputError, match="no pictures in 'testing/7'"): mnist37(folder)


@pytest.mark.parametrize("make", [digits37, lambda: mnist37(shared("mnist_png_37.tgz"))])
def test_the_pictures_of_lessons_2_8_and_2_9(make):
    "The network of lesson 2.8 (3 or 7?) learns the real digits; without its sigmoid the two accuracies are one number."
    from fastcourse.nets import mlp
    d: Digits = make()
    torch.manual_seed(published("2.8")["seed"])
    net = mlp(d.x.shape[1], 32, 1, last=torch.nn.Sigmoid)
    opt = torch.optim.Adam(net.parameters())
    for _ in range(200):
        loss = torch.nn.BCELoss()(net(d.x), d.y)
        opt.zero_grad(); loss.backward(); opt.step()
    with torch.no_grad():
        accuracy = [((net(x) > 0.5) == y).float().mean().item() for x, y in ((d.x, d.y), (d.x_test, d.y_test))]
        assert accuracy[0] > 0.98 and accuracy[1] > 0.95
        assert torch.equal(net(d.x) > 0.5, net[:-1](d.x) > 0)

"""Pages that work by double click: equal to Python, in node and in a real browser, and nobody is asked for anything."""
import functools
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from fastai.text.core import BaseTokenizer
from torch import nn

from fastcourse.core import InputError
from fastcourse.data import codes, human_numbers, letters
from fastcourse.generate import generate
from fastcourse.learner import history, tensor_learner
from fastcourse.page import page
from fastcourse.text import lm_learner, save_lm

from axe import axe, axe_problems
from chromium import browser, chromium, look_as, wait
from chromium import quiet as asks_nobody
from command import here, is_one_line

ROOT = Path(__file__).parents[1]
node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")


@node
def test_the_tests_of_the_javascript():
    r = subprocess.run(["node", "--test", "tests/web/"], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout[-3000:]


def language_model():
    torch.manual_seed(0)
    lrnr = lm_learner(human_numbers(10), config=dict(emb_sz=24, n_hid=32, n_layers=2))
    for p in lrnr.model.parameters(): nn.init.normal_(p, std=0.6)  # as sure of itself as a trained one
    return lrnr


def network(loss_func=None, y=None, *layers):
    x = codes(letters("abcd")[:-1])
    y = codes(letters("abcd")[1:]) if y is None else y
    torch.manual_seed(43052)
    model = nn.Sequential(nn.Embedding(4, 2), nn.Tanh(), nn.Linear(2, 4), *layers)
    return tensor_learner(x, y, model, loss_func, lr=0.1)


def in_node(tmp_path, code: str):
    "What `code` prints as JSON; it knows `part(file, id)`, and everything in the two modules."
    web = ROOT/"fastcourse"/"web"
    head = "".join(f"import * as {o} from {json.dumps(str(web/f'{o}.mjs'))}\n" for o in ("speak", "net"))
    head += ("import { readFileSync } from 'node:fs'\n"
             "const part = (f, id) => readFileSync(f, 'utf8').split(`id=\"${id}\">`)[1].split('</script>')[0]\n"
             "const tell = o => console.log(JSON.stringify(o))\n")
    (tmp_path/"run.mjs").write_text(head+code)
    r = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


SPEAK = """
const about = JSON.parse(part('lm.html', 'about'))
const voice = new speak.Voice(speak.unpack(about, part('lm.html', 'weights')))
const { ids } = speak.read('one, two,', about)
tell([...speak.goOn(voice, ids, new Set(about.silent), HOW)].filter(Boolean).map(o => [about.vocab[o.word], o.p]))
"""


@node
@pytest.mark.parametrize("precision, close", [("fp16", 1e-3), ("int8", 2e-2)])
def test_the_page_says_what_generate_says(tmp_path, precision, close):
    lrnr = language_model()
    page(lrnr, tmp_path/"lm.html", precision=precision)
    theirs = in_node(tmp_path, SPEAK.replace("HOW", "{words: 200, temperature: 0}"))
    ours = generate(lrnr, "one, two,", 200, greedy=True)
    # the weights are rounded, so two words that are nearly equally likely may change places; up to there all is equal
    same = next((i for i, (a, (b, _)) in enumerate(zip(ours.tokens, theirs)) if a != b), 200)
    assert same == 200 or precision == "int8" and same > 0
    assert max(abs(a-b) for a, (_, b) in zip(ours.probs.tolist()[:same], theirs)) < close


@node
@pytest.mark.parametrize("how, python", [("temperature: 0.7", dict(temperature=0.7)), ("topK: 3", dict(top_k=3)),
                                         ("topP: 0.8", dict(top_p=0.8)), ("minP: 0.2", dict(min_p=0.2))])
def test_one_seed_gives_the_same_words_in_the_page_and_in_python(tmp_path, how, python):
    lrnr = language_model()
    page(lrnr, tmp_path/"lm.html")
    theirs = [w for w, _ in in_node(tmp_path, SPEAK.replace("HOW", f"{{words: 20, seed: 7, {how}}}"))]
    ours = generate(lrnr, "one, two,", 20, seed=7, **python).tokens
    assert theirs[:8] == ours[:8]  # later, one draw that falls between the roundings may part them


READ = """
const texts = JSON.parse(readFileSync('texts.json')), tokenizer = JSON.parse(readFileSync('tokenizer.json'))
tell(texts.map(t => speak.read(t, tokenizer).ids.map(i => tokenizer.vocab[i])))
"""


@node
@pytest.mark.parametrize("split", [False, True])
def test_a_prompt_is_cut_as_in_python(tmp_path, split):
    texts = ["one, two,", "One TWO, three! I am A.", "sooooo good!!! no no no no way",
             "I don't know; it's 3.5 or 10,000?", "twenty-one (21) \u201cquotes\u201d and/or #tags", "안녕하세요, 세 번째 단어!",
             "  spaces   and\nlines ", "xxbos one xxmaj two",
             "MIXEDcase Words'll go...", "é È ÀB Ünder", "a\u00a0b 😀 c"]
    lrnr = language_model()
    tok = lrnr.dls.train_ds.tokenizer
    cut = BaseTokenizer(" ") if split else tok.tok
    ours = [[t for toks in cut([functools.reduce(lambda t, rule: rule(t), tok.rules, text)]) for t in toks]
            for text in texts]
    vocab = ["xxunk", *dict.fromkeys(t for o in ours for t in o)]
    about = dict(vocab=vocab, split=" " if split else None, rules=[r.__name__ for r in tok.rules])
    (tmp_path/"texts.json").write_text(json.dumps(texts))
    (tmp_path/"tokenizer.json").write_text(json.dumps(about))
    theirs = in_node(tmp_path, READ)
    tidy = lambda words: [w for w in words if w.strip()]  # spaCy keeps a line break as a word
    assert [tidy(o) for o in theirs] == [tidy(o) for o in ours]


TRAIN = """
const a = JSON.parse(part('net.html', 'about')), adam = new net.Adam(a.layers, a.adam)
tell([net.train(a.layers, a.x, a.y, a.loss, adam, 31), net.outputs(a.layers, a.rows).at(-1)])
"""


@node
@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "MSELoss", "BCEWithLogitsLoss", "BCELoss"])
def test_training_in_the_page_is_training_in_python(tmp_path, loss):
    y = None if loss == "CrossEntropyLoss" else nn.functional.one_hot(codes(letters("abcd")[1:]), 4).float()
    lrnr = network(getattr(nn, loss)(), y, *([nn.Sigmoid()] if loss == "BCELoss" else []))
    page(lrnr, tmp_path/"net.html", names=list("abcd"))
    losses, outs = in_node(tmp_path, TRAIN)
    with lrnr.no_bar(), lrnr.no_logging(): lrnr.fit(31)
    told = history(lrnr).valid_loss.tolist()  # after each step: one ahead of the page's, which are before it
    assert max(abs(a-b) for a, b in zip(told, losses[1:])) < 1e-4
    with torch.no_grad(): ours = lrnr.model.cpu().eval()(torch.arange(4))
    torch.testing.assert_close(torch.tensor(outs), ours, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("change", ["dropout", "frozen", "weighted", "smoothed", "ignored", "another loss"])
def test_the_page_trains_only_as_python_would(tmp_path, change):
    losses = dict(weighted=nn.CrossEntropyLoss(weight=torch.tensor([1., 2., 1., 1.])),
                  smoothed=nn.CrossEntropyLoss(label_smoothing=0.1), ignored=nn.CrossEntropyLoss(ignore_index=2))
    losses["another loss"] = nn.MultiMarginLoss()
    lrnr = network(losses.get(change), None, *([nn.Dropout(0.5)] if change == "dropout" else []))
    if change == "frozen": lrnr.model[2].bias.requires_grad_(False)
    text = page(lrnr, tmp_path/"net.html").read_text()
    assert '"x": ' not in text and '"layers": ' in text
    assert '"x": ' in page(network(), tmp_path/"net.html").read_text()


def test_names_and_texts_are_no_code(tmp_path):
    evil = ["</script><script>alert(1)</script>", "<b>", "&amp;", "\u2028"]
    text = page(network(), tmp_path/"net.html", names=evil, title=evil[0]).read_text()
    assert "alert(1)" in text and "</script><script>alert" not in text and text.count("<script") == 3


@pytest.mark.parametrize("model, what", [
    (nn.Sequential(nn.Linear(1, 20000), nn.Tanh(), nn.Linear(20000, 1)), "a page shows 20,000"),
    (nn.Sequential(nn.Linear(1, 3), nn.Softplus(), nn.Linear(3, 1)), "Softplus"),
    (nn.Sequential(nn.Linear(1, 2), nn.LayerNorm(2), nn.Linear(2, 1)), "LayerNorm"),
    (nn.Sequential(*[nn.Linear(1, 1)]*2), "the same weights twice"),
])
def test_what_a_page_cannot_show_is_one_sentence(tmp_path, model, what):
    x = torch.randn(8, 1)
    with pytest.raises(InputError, match=what): page(tensor_learner(x, x, model), tmp_path/"net.html")
    assert not (tmp_path/"net.html").exists()


def test_weights_that_16_bits_cannot_hold(tmp_path):
    lrnr = language_model()
    with torch.no_grad(): next(lrnr.model.parameters())[0, 0] = 1e6
    with pytest.raises(InputError, match="65,504"): page(lrnr, tmp_path/"bad.html")
    assert page(lrnr, tmp_path/"good.html", precision="int8").exists()


def test_a_network_with_nan_has_no_page(tmp_path):
    for lrnr in (network(), language_model()):
        with torch.no_grad(): next(lrnr.model.parameters())[0, 0] = math.nan
        with pytest.raises(InputError, match="There is no page"): page(lrnr, tmp_path/"bad.html")


def test_an_earlier_page_stays_where_the_new_one_fails(tmp_path):
    old = page(network(), tmp_path/"net.html").read_text()
    x, strange = torch.randn(8, 1), nn.Sequential(nn.Linear(1, 1), nn.GELU())
    with pytest.raises(InputError): page(tensor_learner(x, x, strange), tmp_path/"net.html")
    assert (tmp_path/"net.html").read_text() == old


def test_the_command(tmp_path, capsys, monkeypatch):
    save_lm(language_model(), tmp_path/"lm")
    monkeypatch.chdir(tmp_path)
    r = here(capsys, "page", "lm", "-o", "a/b.html", "--title", "<Count>")   # as a process: tests/test_terminal.py
    assert r.returncode == 0 and "a/b.html: 0.1 MB" in r.stdout, r.stderr
    assert "&lt;Count&gt;" in (tmp_path/"a"/"b.html").read_text()
    own, model = tmp_path/"own.html", tmp_path/"lm"
    own.write_text("mine")
    (tmp_path/"net").mkdir()
    (tmp_path/"net"/"classifier.json").write_text("{}")
    (tmp_path/"bad").mkdir()
    (tmp_path/"bad"/"lm.json").write_text("{")
    for folder, out, what in ((model, own, "--force"), (tmp_path/"net", "x.html", "picture classifier"),
                              (tmp_path/"bad", "x.html", "damaged"), (tmp_path/"none", "x.html", "There is no model"),
                              (model, own/"x.html", "cannot be written"),
                              (model, tmp_path/"x.txt", "must end in .html"),
                              (model, tmp_path/"net", "must end in .html")):
        is_one_line(here(capsys, "page", folder, "-o", out), what)
    assert own.read_text() == "mine" and not (tmp_path/"x.txt").exists()
    for out in (own, tmp_path/"a"/"b.html"):
        assert here(capsys, "page", model, "-o", out, *["--int8", *(["--force"] if out == own else [])]).returncode == 0
        assert '"bits": 8' in out.read_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    "The two pages in Chromium: `pages(name, width, language, scheme)` opens one."
    tmp = tmp_path_factory.mktemp("pages")
    page(language_model(), tmp/"lm.html", prompt="one, two,")
    page(network(), tmp/"net.html", names=list("abcd"))
    x = torch.ones(3, 1)
    page(tensor_learner(x, x, nn.Linear(1, 1), nn.MSELoss(), lr=1e200), tmp/"wild.html")
    d = chromium(tmp/"profile")
    def open_page(name, width=1280, language="en", scheme="light"):
        look_as(d, width, 844, language, scheme).get((tmp/f"{name}.html").as_uri())
        return d
    yield open_page
    d.quit()


def quiet(driver): asks_nobody(driver, "file:")


WORDS = "document.querySelectorAll('#said button')"
DONE = f"{WORDS}.length >= 25 && document.getElementById('stop').disabled"


@browser
def test_a_language_model_by_keyboard_alone(pages):
    from selenium.webdriver import ActionChains, Keys
    d = pages("lm")
    press = lambda *keys: ActionChains(d).send_keys(*keys).perform()
    focus = lambda: d.execute_script("return document.activeElement.textContent")
    said = lambda: d.execute_script(f"return [...{WORDS}].slice(0, 4).map(b => b.textContent)")
    d.execute_script("document.getElementById('seed').value = 1")  # the same words each time
    press(Keys.TAB, Keys.ENTER)  # the first place is the prompt
    wait(d, DONE)
    first = said()
    press(*[Keys.TAB]*11)  # two buttons (one is off), six fields, four words
    assert focus() == first[3]
    press(Keys.ENTER)
    wait(d, "document.querySelectorAll('#instead td button').length === 10")
    press(Keys.ESCAPE)  # and back to the word
    assert focus() == first[3] and not d.find_element("id", "instead").is_displayed()
    press(Keys.ENTER, Keys.TAB, Keys.TAB)
    other = focus()
    press(Keys.ENTER)
    wait(d, f"document.getElementById('instead').hidden && {DONE}")
    # a mark before the word may have made it "One", or "one one"
    assert said()[:3] == first[:3] and (said()[3].lower().startswith(other) or other.startswith("xx"))
    assert focus() == said()[3]
    quiet(d)


@browser
@axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["lm", "net"])
def test_nothing_keeps_people_from_using_a_page(pages, name, width, scheme):
    d = pages(name, width, scheme=scheme)
    if name == "lm":
        d.execute_script("document.getElementById('ask').requestSubmit()")
        wait(d, DONE)
        d.execute_script(f"{WORDS}[3].click()")
    else:
        d.execute_script("document.getElementById('train').click()")
        wait(d, "!document.getElementById('train').disabled")
    assert axe_problems(d) == []
    assert d.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    quiet(d)


@browser
def test_what_makes_no_sense_is_told_on_the_page(pages):
    d = pages("lm", 390, "ko")
    assert d.execute_script("return document.documentElement.lang") == "ko" and "이어 쓰기" in d.page_source
    assert d.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    say = "document.getElementById('ask').requestSubmit(); return document.getElementById('message').textContent"
    d.execute_script("document.getElementById('ask').noValidate = true")
    d.execute_script("document.getElementById('temperature').value = -1")
    assert "온도 = -1" in d.execute_script(say)
    d.execute_script("document.getElementById('temperature').value = 1; document.getElementById('prompt').value = ' '")
    assert "단어를 하나 이상" in d.execute_script(say)
    d.execute_script("document.getElementById('prompt').value = 'one zap '.repeat(12500)")   # 100,000 letters
    told = d.execute_script(say)
    assert "zap" in told and "2,000" in told
    wait(d, f"{WORDS}.length > 5")
    quiet(d)


@browser
def test_a_letter_moves_weights_change_and_training_goes_on(pages):
    from selenium.webdriver import ActionChains, Keys
    d = pages("net")
    table = "[...document.querySelectorAll('#table td.cell')].map(c => c.textContent).join()"
    first = d.execute_script(f"return {table}")
    d.execute_script("document.querySelector('#letters [role=slider]').focus()")
    ActionChains(d).send_keys(Keys.ARROW_RIGHT).perform()
    moved = d.execute_script(f"return {table}")
    assert moved != first
    mark = d.find_element("css selector", "#letters [role=slider] circle")
    ActionChains(d).drag_and_drop_by_offset(mark, 40, 30).perform()
    dragged = d.execute_script(f"return {table}")
    assert dragged != moved
    d.execute_script("const f = document.querySelector('#weights input'); f.value = 3; "
                     "f.dispatchEvent(new Event('change'))")
    assert d.execute_script("return document.querySelector('#table td.cell').textContent") == "3.00"
    d.execute_script("document.getElementById('train').click()")
    wait(d, "!document.getElementById('train').disabled")
    told = d.execute_script("return document.getElementById('lossnow').textContent")
    assert re.match(r"epoch 50, loss [0-2]\.\d{4}$", told)
    d.execute_script("document.getElementById('back').click()")
    assert d.execute_script(f"return {table}") == first
    # clicked while it trains, "back" ends the training
    d.execute_script("document.getElementById('train').click(); document.getElementById('back').click()")
    wait(d, "!document.getElementById('train').disabled")
    assert d.execute_script(f"return {table}") == first
    quiet(d)


@browser
def test_a_training_that_diverges_says_so(pages):
    d = pages("wild")
    wait(d, "(document.getElementById('train').click(), "
            "document.getElementById('lossnow').textContent.includes('back'))")
    assert "NaN" not in d.find_element("id", "table").text
    quiet(d)

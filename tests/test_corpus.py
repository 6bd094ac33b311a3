"""Folders of text files: words on the disk, the same batches as from memory, and files that are no text."""
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastai.text.core import Tokenizer
from fastai.text.learner import load_learner

from fastcourse.core import InputError, plain_bars
from fastcourse.corpus import JoinedTexts, corpus_words, file_texts, text_files
from fastcourse.data import human_numbers
from fastcourse.lm import LinearTokenizer
from fastcourse.text import lm_dls, lm_learner, load_lm, save_lm

plain_bars()
tokenizer = Tokenizer(LinearTokenizer())


@pytest.fixture
def folder(tmp_path):
    "Twenty texts, half of them in a folder of their own"
    for i, text in enumerate(human_numbers(20).text):
        file = tmp_path/"texts"/("more" if i % 2 else ".")/f"{i:02}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path/"texts"


def on_disk(folder): return folder.with_name(f"{folder.name}_words")


@given(st.lists(st.lists(st.integers(0, 255), max_size=5), min_size=1, max_size=8), st.data())
def test_a_slice_of_joined_texts_is_the_slice_of_their_concatenation(texts, data):
    whole = [w for t in texts for w in t]
    start, stop = sorted(data.draw(st.integers(0, len(whole))) for _ in range(2))
    if start == stop: return
    assert JoinedTexts([np.array(t, np.uint8) for t in texts])[start:stop].tolist() == whole[start:stop]


def test_a_learner_of_a_folder_trains_speaks_and_is_saved(folder, tmp_path):
    lrnr = lm_learner(folder, seq_len=7, bs=3, config=dict(emb_sz=8, n_hid=8))
    lrnr.fit(1)
    said = lrnr.predict("one, two,", 5, temperature=0)
    assert load_lm(save_lm(lrnr, tmp_path/"lm")).predict("one, two,", 5, temperature=0) == said
    lrnr.export(tmp_path/"all.pkl")
    assert load_learner(tmp_path/"all.pkl").predict("one, two,", 5, temperature=0) == said
    more = lm_dls(folder, like=load_lm(tmp_path/"lm"), seq_len=7, bs=3)
    assert list(more.vocab) == list(lrnr.dls.vocab)


def test_each_epoch_reads_every_text_in_another_order(folder):
    dl = lm_dls(folder, seq_len=7, bs=1).train
    texts = [o.ids for o in dl.items.coll.items]
    order = [[], []]
    for o in order:
        list(dl)
        o += map(id, dl.chunks.texts)
        assert sorted(map(str, dl.chunks.texts)) == sorted(map(str, texts))
    assert order[0] != order[1]  # 16! orders


def test_words_are_numbered_once(folder, monkeypatch):
    first = corpus_words(folder, tokenizer)
    with monkeypatch.context() as m:
        m.setattr(LinearTokenizer, "__call__", None)  # nothing is cut into words
        again = corpus_words(folder, tokenizer)
    assert again[0] == first[0] and all(map(np.array_equal, again[1], first[1]))
    (folder/"20.txt").write_text("sixty sixty sixty")
    vocab, texts = corpus_words(folder, tokenizer)
    assert len(texts) == 21 and "sixty" in vocab


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1}'])
def test_a_damaged_list_of_words_is_made_anew(folder, damage):
    vocab, _ = corpus_words(folder, tokenizer)
    (on_disk(folder)/"words.json").write_text(damage)
    assert corpus_words(folder, tokenizer)[0] == vocab
    assert json.loads((on_disk(folder)/"words.json").read_text())["vocab"] == vocab


def test_lost_words_are_made_anew(folder):
    _, texts = corpus_words(folder, tokenizer)
    ids = on_disk(folder)/"words.ids"
    kept = [t.tolist() for t in texts]
    ids.write_bytes(ids.read_bytes()[:-1])
    assert [t.tolist() for t in corpus_words(folder, tokenizer)[1]] == kept


def test_more_than_256_words_take_two_bytes(folder):
    (folder/"words.txt").write_text((" ".join(f"w{chr(97+i//26)}{chr(97+i%26)}" for i in range(300)) + "\n")*3)
    vocab, texts = corpus_words(folder, tokenizer)
    assert texts[0].dtype == np.uint16 and len(vocab) > 300
    assert (on_disk(folder)/"words.ids").stat().st_size == 2*sum(map(len, texts))


def test_a_long_file_is_several_texts_cut_after_a_line(tmp_path):
    lines = "".join(f"{'word '*20}{i}\n" for i in range(21_000))
    (tmp_path/"long.txt").write_text(lines)
    texts = list(file_texts(tmp_path/"long.txt"))
    assert len(texts) == 3 and "".join(texts) == lines and all(t.endswith("\n") for t in texts)


def test_only_the_start_of_a_file_begins_a_text(tmp_path, monkeypatch):
    monkeypatch.setattr("fastcourse.corpus._letters", 10)
    folder = tmp_path/"texts"
    folder.mkdir()
    (folder/"a.txt").write_text("one two three\n"*4)
    vocab, texts = corpus_words(folder, tokenizer)
    assert [vocab[t[0]] for t in texts] == ["xxbos", "one", "one", "one"]


@pytest.mark.parametrize("content, says", [
    (b"\xff\xfe\x00", "no text in UTF-8"), (b"one\x00two", "zero byte"), ("가나다".encode("cp949"), "no text in UTF-8")])
def test_a_file_that_is_no_text_is_named(folder, content, says):
    (folder/"bad.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"bad.txt.*{says}"): lm_dls(folder, seq_len=7, bs=3)
    assert not [*on_disk(folder).glob("words.*")]  # nothing half written
    (folder/"bad.txt").unlink()
    lm_dls(folder, seq_len=7, bs=3)


def test_folders_without_enough_text(tmp_path):
    folder = tmp_path/"texts"
    folder.mkdir()
    with pytest.raises(InputError, match="no .txt file"): lm_dls(folder)
    (folder/"a.txt").write_text("one two three")
    with pytest.raises(InputError, match="1 texts"): lm_dls(folder)
    (folder/"b.txt").write_text("four five six")
    with pytest.raises(InputError, match="need at least"): lm_dls(folder, valid_pct=0.5)
    (folder/"c.txt").write_text("  \n")  # no text at all
    assert len(corpus_words(folder, tokenizer)[1]) == 2 == len(text_files(folder))-1
    with pytest.raises(InputError, match="all would be xxunk"): lm_dls(folder, seq_len=1, bs=1, valid_pct=0.5)


def test_where_nothing_can_be_written(folder):
    on_disk(folder).write_text("a file is in the way")
    with pytest.raises(InputError, match="cannot be written"): lm_dls(folder, seq_len=7, bs=3)
    assert on_disk(folder).read_text() == "a file is in the way"

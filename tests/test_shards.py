"""What a cluster fetched, as a picture set: small folders and tar files of img2dataset's format made by hand, hostile
ones among them; and img2dataset itself, where $IMG2DATASET names it, in `make test-long`."""
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import LONG
from hostile import Web, encoded, noise, picture

from fastcourse.clean import check_images
from fastcourse.core import InputError
from fastcourse.crawl import UrlListSearch, crawl_images, to_img2dataset
from fastcourse.shards import from_img2dataset, read_samples, to_shards


def sample(i, data=None, split="train", label="cat", **meta):
    "The three files of sample i, as img2dataset 1.47 names them."
    meta = dict(split=split, label=label, query=label, caption=f"no. {i}", url=f"http://a.b/{i}.jpg", key=f"{i:09d}",
                status="success", error_message=None, width=96, height=72) | meta
    return [(f"{i:09d}.jpg", picture(i) if data is None else data), (f"{i:09d}.txt", b"no."),
            (f"{i:09d}.json", json.dumps(meta, indent=4).encode())]


def write_tar(file, members):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_files(folder, members):
    folder.mkdir(parents=True)
    for name, data in members: (folder/name).write_bytes(data)


def files_below(path): return sorted(o.relative_to(path).as_posix() for o in path.rglob("*") if o.is_file())


@pytest.mark.parametrize("kind", ["files", "webdataset"])
def test_what_a_cluster_fetched_is_as_trusted_as_what_we_fetched(kind, tmp_path):
    smaller = encoded(noise(3).resize((72, 54)), quality=70)
    shards = [sample(0)+sample(1)+sample(2, label="dog"),
              sample(3, split="")+sample(4, b"<html>no picture", split="")+sample(5, picture(5)[:-400], split=""),
              sample(6, picture(0), split="test")+sample(7, smaller, split="test", label="dog")+sample(8, split="test")]
    for i, members in enumerate(shards):
        if kind == "files": write_files(tmp_path/"out"/f"{i:05d}", members)
        else: write_tar(tmp_path/"out"/f"{i:05d}.tar", members)
        (tmp_path/"out"/f"{i:05d}_stats.json").write_text('{"count": 3, "successes": 3}')
    df = from_img2dataset(tmp_path/"out", tmp_path/"set", test_share=0).set_index("url")
    status = {int(Path(url).stem): s for url, s in df.status.items()}
    assert status == {0: "ok", 1: "ok", 2: "ok", 3: "ok", 4: "rejected", 5: "rejected", 6: "duplicate", 7: "duplicate",
                      8: "ok"}
    assert df.reason["http://a.b/6.jpg"].startswith("the same bytes as train/cat/")
    assert df.reason["http://a.b/7.jpg"].startswith("a near duplicate of train/cat/")   # in another class and split
    assert df.reason["http://a.b/4.jpg"] == "not a picture: it is an HTML page"
    folders = df.file[df.status == "ok"].str.rpartition("/")[0]
    assert {int(Path(k).stem): v for k, v in folders.items()} == {0: "train/cat", 1: "train/cat", 2: "train/dog",
                                                                  3: "train/cat", 8: "test/cat"}
    assert df.title["http://a.b/8.jpg"] == "no. 8"
    found = check_images(tmp_path/"set")
    assert len(found) == 5 and not found.problems.astype(bool).any()
    stored = pd.read_csv(tmp_path/"set"/"manifest.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(stored.set_index("url"), df)


def test_a_damaged_shard_is_named_and_the_rest_is_read(tmp_path):
    for i in range(4): write_tar(tmp_path/"out"/f"{i:05d}.tar", sample(2*i)+sample(2*i+1))
    cut = (tmp_path/"out"/"00001.tar").read_bytes()
    (tmp_path/"out"/"00001.tar").write_bytes(cut[:len(picture(2))+3000])   # in the middle of its second sample
    holed = bytearray((tmp_path/"out"/"00002.tar").read_bytes())
    holed[100:300] = b"x"*200   # the first header: its sample is lost, and the one behind it is found
    (tmp_path/"out"/"00002.tar").write_bytes(holed)
    (tmp_path/"out"/"00004.tar").write_bytes(b"no tar file at all"*100)
    with pytest.warns(UserWarning) as told: df = from_img2dataset(tmp_path/"out", tmp_path/"set")
    assert {n for n in range(5) if any(f"{n:05d}.tar' is damaged" in str(o.message) for o in told)} == {1, 2, 4}
    kept = {int(Path(o).stem) for o in df.url[df.status == "ok"]}
    assert {0, 1, 5, 6, 7} <= kept and 4 not in kept


def odd(name, kind=tarfile.REGTYPE, linkname=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def test_members_with_odd_names_and_kinds_are_refused_and_nothing_lands_outside(tmp_path):
    names = ["../evil.jpg", "/tmp/evil.jpg", "a/../../evil.jpg", ".hidden.jpg", "a\\b.jpg", "new\nline.jpg", "a//b.jpg"]
    secret = tmp_path/"secret.jpg"
    secret.write_bytes(picture(9))
    links = [odd("1.jpg", tarfile.SYMTYPE, str(secret)), odd("2.jpg", tarfile.LNKTYPE, "../secret.jpg"),
             odd("3.jpg", tarfile.FIFOTYPE), odd("4.jpg", tarfile.CHRTYPE)]
    meta = json.dumps(dict(label="cat")).encode()
    write_tar(tmp_path/"in"/"out"/"00000.tar", sample(0)+[(o, picture(7)) for o in names]+[(o, b"") for o in links]
              + [(o.replace("jpg", "json"), meta) for o in names])
    before = files_below(tmp_path)
    with pytest.warns(UserWarning, match="left out .18, such as '../evil.jpg'"):
        df = from_img2dataset(tmp_path/"in"/"out", tmp_path/"in"/"set")
    assert df.status.tolist() == ["ok"]
    assert [o for o in files_below(tmp_path) if not o.startswith("in/set/")] == before
    assert not Path("/tmp/evil.jpg").exists()


@pytest.mark.parametrize("label", ["../../x", "a/b", ".x", "x\0y", "..", "", 7, None, ["cat"], "c"*300])
def test_a_class_that_is_no_folder_name_is_refused(label, tmp_path):
    write_tar(tmp_path/"out"/"0.tar", sample(0)+sample(1, label=label)+sample(2, split="../test"))
    df = from_img2dataset(tmp_path/"out", tmp_path/"set")
    row = df[df.url == "http://a.b/1.jpg"].iloc[0]
    if row.status == "ok":
        assert row.file.split("/")[:2] == ["train", row.label] and label in (7, ["cat"], "x\0y", "c"*300)
    else: assert row.status == "rejected" and "it becomes a folder" in row.reason
    assert df.status[df.url == "http://a.b/2.jpg"].item() == "rejected"
    assert {o.split("/")[0] for o in files_below(tmp_path/"set")} == {".crawl", "manifest.csv", "train"}


def test_json_that_is_none_and_samples_in_parts(tmp_path):
    write_tar(tmp_path/"out"/"0.tar", sample(0)+[("1.jpg", picture(1)), ("1.json", b"["*100_000), ("2.jpg", picture(2)),
              ("2.json", b"[1]"), ("3.json", b"{}"), ("4.png", encoded(noise(4), "PNG")), ("4.cls", b"dog\n")])
    df = from_img2dataset(tmp_path/"out", tmp_path/"set")
    assert df.status.tolist() == ["ok", "rejected", "rejected", "ok"]
    assert df.label.tolist() == ["cat", "", "", "dog"] and df.url[3] == "shard:0.tar/4"


def test_a_huge_member_is_not_read(tmp_path):
    (tmp_path/"out").mkdir()
    with tarfile.open(tmp_path/"out"/"0.tar", "w") as tar:
        info = tarfile.TarInfo("9.jpg")
        info.size = 10**12   # and nothing behind it
        tar.fileobj.write(info.tobuf())
    write_tar(tmp_path/"out"/"1.tar", sample(1))
    with pytest.warns(UserWarning, match="0.tar' (is damaged|has members that are left out)"):
        assert len([*read_samples(tmp_path/"out")]) == 1


def test_it_goes_on_where_it_was(tmp_path, monkeypatch):
    import fastcourse.shards as module
    write_tar(tmp_path/"out"/"0.tar", sum((sample(i) for i in range(6)), []))
    store, calls = module.store_picture, []
    def stop_at_four(data, *args):
        calls.append(data)
        if len(calls) == 4: raise KeyboardInterrupt
        return store(data, *args)
    monkeypatch.setattr(module, "store_picture", stop_at_four)
    with pytest.raises(KeyboardInterrupt): from_img2dataset(tmp_path/"out", tmp_path/"set")
    df = from_img2dataset(tmp_path/"out", tmp_path/"set")
    assert len(calls) == 4+3 and df.status.tolist() == ["ok"]*6 and df["rank"].tolist() == [*range(1, 7)]


def test_shards_out_and_back_are_the_same_set(tmp_path):
    for split, label, seeds in (("train", "cat", range(9)), ("train", "dog", range(20, 24)), ("test", "cat", (30,))):
        write_files(tmp_path/"lib"/split/label, [(f"{s} 사진.jpg", picture(s)) for s in seeds])
    shards = to_shards(tmp_path/"lib", tmp_path/"out", per_shard=5)
    assert [o.relative_to(tmp_path/"out").as_posix() for o in shards] == ["test/00000.tar", "train/00000.tar",
                                                                        "train/00001.tar", "train/00002.tar"]
    with tarfile.open(shards[1]) as tar: names = tar.getnames()
    assert names[:3] == ["000000000.jpg", "000000000.cls", "000000000.json"] and len(names) == 15
    df = from_img2dataset(tmp_path/"out", tmp_path/"back")
    def contents(path): return {(*o.relative_to(path).parts[:2], o.read_bytes()) for o in path.glob("*/*/*.jpg")}
    assert contents(tmp_path/"back") == contents(tmp_path/"lib") and (df.status == "ok").all()
    again = to_shards(tmp_path/"lib", tmp_path/"again", per_shard=5)
    assert [o.read_bytes() for o in again] == [o.read_bytes() for o in shards]
    with pytest.raises(InputError, match="per_shard=0"): to_shards(tmp_path/"lib", tmp_path/"c", per_shard=0)


def test_webdataset_itself_reads_our_shards(tmp_path):
    wds = pytest.importorskip("webdataset")
    write_files(tmp_path/"lib"/"train"/"cat", [(f"{s}.jpg", picture(s)) for s in range(3)])
    shard, = to_shards(tmp_path/"lib", tmp_path/"out")
    got = [*wds.WebDataset(str(shard), shardshuffle=False)]
    assert {o["jpg"] for o in got} == {picture(s) for s in range(3)} and {o["cls"] for o in got} == {b"cat"}


@pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="pyarrow is not installed")
def test_urls_that_failed_have_a_row(tmp_path):
    write_tar(tmp_path/"out"/"00000.tar", sample(0))
    rows = [dict(url=f"http://a.b/{i}.jpg", label="cat", split="train", query="cat", status=s, error_message=e)
            for i, (s, e) in enumerate([("success", None), ("failed_to_download", "HTTP Error 404: Not Found")])]
    pd.DataFrame(rows).to_parquet(tmp_path/"out"/"00000.parquet")
    (tmp_path/"out"/"00001.parquet").write_bytes(b"PAR1 no table")
    with pytest.warns(UserWarning, match="00001.parquet' is damaged"):
        df = from_img2dataset(tmp_path/"out", tmp_path/"set")
    assert df.status.tolist() == ["ok", "failed"] and df.reason[1] == "HTTP Error 404: Not Found"


@pytest.mark.skipif(not (LONG and os.environ.get("IMG2DATASET")),
                    reason="make test-long, with the program of an environment of its own in $IMG2DATASET")
@pytest.mark.parametrize("distributor", ["multiprocessing", "ray"])
@pytest.mark.parametrize("output", ["files", "webdataset"])
def test_img2dataset_against_the_hostile_server(distributor, output, tmp_path):
    "Two processes of img2dataset 1.47 fetch what a crawl has found; what we make of it is what the crawl made of it."
    program = os.environ["IMG2DATASET"]
    with Web() as web:
        urls = {"cat": [web.url(f"/ok/{i}.jpg") for i in range(8)],
                "dog": [web.url(o) for o in ("/same/0/a.jpg", "/again/b.jpg", "/smaller/c.jpg", "/ok/40.jpg",
                                             "/nothing.jpg", "/tiff.jpg", "/bmw.bmp")]}
        crawled = crawl_images({k: k for k in urls}, tmp_path/"crawl", engine=UrlListSearch(urls),
                               allow_local=True, retries=0)
        table = to_img2dataset(crawled, tmp_path/"urls.csv")
        options = dict(url_list=table, input_format="csv", url_col="url", caption_col="caption", output_format=output,
                       save_additional_columns='["split","label","query"]', output_folder=tmp_path/"out",
                       resize_mode="no", processes_count=2, thread_count=4, number_sample_per_shard=5,
                       distributor=distributor)
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run([program, *(f"--{k}={v}" for k, v in options.items())], check=True, timeout=200,
                       env={**env, "NO_ALBUMENTATIONS_UPDATE": "1", "RAY_USAGE_STATS_ENABLED": "0"},
                       stdout=subprocess.DEVNULL, stderr=sys.stderr)
    df = from_img2dataset(tmp_path/"out", tmp_path/"set")
    want, got = crawled.set_index("url"), df.set_index("url")
    alike = got.index.str.contains("/same/|/again/|/smaller/")   # three of one picture: which is first is luck
    kept = got.index[(got.status == "ok") & ~alike & ~got.index.str.endswith("tiff.jpg")]   # it makes a JPEG of a TIFF
    assert (got.status[alike] == "ok").sum() == 1 and (got.status[alike] == "duplicate").sum() == 2
    assert {*kept} == {*want.index[(want.status == "ok") & ~want.index.str.contains("/same/|/again/|/smaller/")]}
    assert (got.label[kept] == want.label[kept]).all()
    assert (got.file[kept].str.rpartition("/")[0] == want.file[kept].str.rpartition("/")[0]).all()
    assert not check_images(tmp_path/"set").problems.astype(bool).any()
    if importlib.util.find_spec("pyarrow"):  # each URL that failed stands in a parquet, with the reason
        for url, why in (("/nothing.jpg", "404"), ("/bmw.bmp", "decoding")):
            assert got.status[web.url(url)] == "failed" and why in got.reason[web.url(url)]
        assert {*got.index} == {*want.index}

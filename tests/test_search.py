"""Search engines: DuckDuckGo played by a server on this machine, a folder, a list, and odd ones."""
import time

import pytest
from hostile import Web

from fastcourse.core import InputError
from fastcourse.search import (FolderSearch, NoResults, SearchError, SearchRefused, UrlListSearch, search_images)


@pytest.fixture
def web():
    with Web() as web: yield web


@pytest.fixture
def duckduckgo(web, monkeypatch):
    "Both packages talk to the local server in place of the search engine."
    from ddgs.http_client import HttpClient
    from duckduckgo_search import DDGS
    def to_local(f, calls):
        def request(self, method, url, *args, **kwargs):
            calls.append(url)
            return f(self, method, url.replace("https://duckduckgo.com", web.url("/ddg")), *args, **kwargs)
        return request
    web.ddgs, web.older = [], []
    monkeypatch.setattr(HttpClient, "request", to_local(HttpClient.request, web.ddgs))
    monkeypatch.setattr(DDGS, "_get_url", to_local(DDGS._get_url, web.older))
    monkeypatch.setattr(DDGS, "_sleep", lambda *a: None)
    return web


def test_search_walks_pages_and_keeps_urls_exact(duckduckgo):
    duckduckgo.results["red panda"] = 250
    found = search_images("red panda", 230)
    assert len(found) == 230 and not duckduckgo.older
    assert found[7] == dict(image="https://img.example/7%20a.jpg?w=100%25&i=7", thumbnail="https://t.example/7",
                            url="https://page.example/7", title="red panda 7",
                            width=640, height=480, source="Bing")
    assert [o.title for o in found] == [f"red panda {i}" for i in range(230)]     # the engine's own order
    assert [q.get("s", "0") for p, q in duckduckgo.asked if p.endswith("i.js")] == ["0", "100", "200"]
    assert len(search_images("red panda", 1000)) == 250                          # there are no more
    assert len(search_images("red panda", 5, size="Large")) == 5
    assert "size:Large" in duckduckgo.asked[-1][1]["f"]
    search_images("red panda", 5, color="Red", license="Share")
    assert "color:Red" in duckduckgo.asked[-1][1]["f"] and "license:Share" in duckduckgo.asked[-1][1]["f"]
    with pytest.raises(InputError, match="Small, Medium, Large"): search_images("red panda", 5, size="huge")


def test_a_page_that_comes_again_ends_the_search(duckduckgo):
    duckduckgo.results["again"] = 5
    assert len(search_images("again", 50)) == 5 and len(duckduckgo.ddgs) <= 6


def test_nothing_and_no_are_two_errors(duckduckgo):
    with pytest.raises(NoResults, match="no pictures for 'xyzzy'"): search_images("xyzzy")
    assert not duckduckgo.older   # an honest nothing is not asked again elsewhere
    duckduckgo.results["cat"] = 20
    for status in (403, 429, 202):
        duckduckgo.refusals, duckduckgo.refuse_with = 99, status
        with pytest.raises(SearchRefused, match="2 times"): search_images("cat", retries=1, pause=0)
        assert duckduckgo.refusals == 99-2*2    # two tries of two packages: no hammering
    duckduckgo.refusals, duckduckgo.refuse_with = 1, 403
    assert len(search_images("cat", 20)) == 20 and duckduckgo.older   # the second choice helps at once
    duckduckgo.refusals = 3
    assert len(search_images("cat", 20, pause=0)) == 20               # and waiting helps


def test_pauses_grow(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    class No:
        def search(self, term, max_images, size=None): raise SearchRefused("no")
    with pytest.raises(SearchRefused): search_images("cat", engine=No(), retries=4, pause=5)
    assert len(waits) == 4 and all(.5*5*2**n <= w <= 1.5*5*2**n for n, w in enumerate(waits))


def test_a_refusal_in_the_middle_keeps_what_there_is():
    class Half:
        def search(self, term, max_images, size=None):
            yield dict(image="http://a/1.jpg")
            raise SearchRefused("enough")
    with pytest.warns(UserWarning, match="1 of 9 pictures found"):
        assert len(search_images("cat", 9, Half(), pause=0)) == 1


def test_search_without_a_network_is_one_sentence(web, monkeypatch):
    from ddgs.http_client import HttpClient
    from duckduckgo_search import DDGS
    for cls, name in ((HttpClient, "request"), (DDGS, "_get_url")):
        old = getattr(cls, name)
        def closed(self, method, url, *args, old=old, **kwargs):
            return old(self, method, url.replace("https://duckduckgo.com", "http://127.0.0.1:1"), *args, **kwargs)
        monkeypatch.setattr(cls, name, closed)
    with pytest.raises(SearchError, match="check the network") as e: search_images("cat")
    assert type(e.value) is SearchError


def test_hostile_records_are_tamed():
    class Odd:
        def search(self, term, max_images, size=None):
            return [dict(image="http://a/1.jpg", title="two\nlines\0\ud800", width="640", height="tall"),
                    dict(image=None), dict(), dict(image="http://a/1.jpg")]
    found = search_images("cat", engine=Odd())
    assert len(found) == 1 and found[0].title == "two lines" and (found[0].width, found[0].height) == (640, 0)


def test_url_lists(tmp_path):
    rows = ["query,url,title", "cat,http://a/1.jpg,One", "cat,http://a/2.jpg,Two", "dog,http://a/3.jpg,"]
    (tmp_path/"urls.csv").write_text("\n".join(rows))
    engine = UrlListSearch(tmp_path/"urls.csv")
    found = search_images("Cat", engine=engine)
    assert [(o.image, o.title) for o in found] == [("http://a/1.jpg", "One"), ("http://a/2.jpg", "Two")]
    with pytest.raises(NoResults, match="'cat', 'dog'"): search_images("cow", engine=engine)
    (tmp_path/"bad.csv").write_text("a,b\n1,2\n")
    for bad, word in ((tmp_path/"bad.csv", "query and url are needed"), (tmp_path/"none.csv", "cannot be read"),
                      ({"cat": "http://a"}, "give a list")):
        with pytest.raises(InputError, match=word): UrlListSearch(bad)
    with pytest.raises(InputError, match="no such folder"): FolderSearch(tmp_path/"none")


def test_engines_without_filters_are_asked_without():
    class Plain:
        def search(self, term, max_images, size=None): return [dict(image="http://a/1.jpg")]
    class Filtering:
        def search(self, term, max_images, size=None, license=None): return [dict(image=f"http://a/{license}.jpg")]
    assert len(search_images("cat", engine=Plain())) == 1
    assert search_images("cat", engine=Filtering(), license="Share")[0].image == "http://a/Share.jpg"

"""A web server on this machine that plays a search engine, picture hosts that work, and hosts that do everything wrong.

`with Web() as web:` runs it in this process; `web.url("/ok/1.jpg")` is a picture, `CASES` lists the bad ones with what
`download_images` has to make of them. `python tests/hostile.py` prints that table, `python tests/hostile.py serve
LATENCY` runs the server alone and prints its address.
"""
import gzip
import io
import json
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from functools import cache, cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image, ImageDraw


def noise(seed: int, size=(96, 72)) -> Image.Image:
    "A picture with soft coloured shapes, another one for each seed."
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(im: Image.Image, kind="JPEG", **kwargs) -> bytes:
    b = io.BytesIO()
    im.save(b, kind, **kwargs)
    return b.getvalue()


@cache
def picture(seed: int) -> bytes:
    return encoded(noise(seed), quality=90)


@cache
def photo(seed: int) -> bytes:
    "Of the size of a photograph in the web: 1200x900 pixels with some grain, about 300 kB."
    grain = np.random.default_rng(seed).integers(-12, 12, (900, 1200, 1))
    im = np.asarray(noise(seed, (1200, 900))).astype(np.int16)+grain
    return encoded(Image.fromarray(im.clip(0, 255).astype(np.uint8)), quality=88)


@cache
def bomb(side: int = 13000) -> bytes:
    "A PNG of side x side pixels, all black, written row by row: 169 megapixels in about 20 kB."
    pack = zlib.compressobj(9)
    data = b"".join(pack.compress(bytes(1+side//8)) for _ in range(side))+pack.flush()
    def chunk(name, body): return struct.pack(">I", len(body))+name+body+struct.pack(">I", zlib.crc32(name+body))
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n"+chunk(b"IHDR", head)+chunk(b"IDAT", data)+chunk(b"IEND", b"")


def holed(data: bytes, n: int) -> bytes:
    "`data` with n bytes in the middle set to zero."
    m = len(data)//2
    return data[:m]+bytes(n)+data[m+n:]


def with_part(data: bytes, part: bytes) -> bytes:
    "A JPEG with an EXIF part."
    part = b"Exif\0\0"+part
    return data[:2]+b"\xff\xe1"+(len(part)+2).to_bytes(2, "big")+part+data[2:]


@cache
def many_scans(n: int = 2000) -> bytes:
    "A progressive JPEG that sends its last scan again and again."
    data = encoded(Image.new("RGB", (400, 300), (9, 90, 200)), progressive=True)
    return data[:-2]+data[data.rindex(b"\xff\xda"):-2]*n+data[-2:]


@cache
def drawing() -> bytes:
    "Black on nothing: without its transparency it would be a black square."
    im = Image.new("RGBA", (80, 60))
    ImageDraw.Draw(im).ellipse((10, 10, 70, 50), outline="black", width=4)
    return encoded(im, "PNG")


GOOD = encoded(noise(13, (400, 300)), quality=95)
PNG = encoded(noise(40), "PNG")
LARGE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)), "PNG")

# Path (or whole URL) -> status and a part of the reason. The limits that fit are `LIMITS`.
CASES = {
    "/403": ("refused", "HTTP 403"), "/404": ("refused", "HTTP 404"), "/410": ("refused", "HTTP 410"),
    "/429-soon": ("ok", ""), "/429-hour": ("failed", "asks to wait 3600 s"), "/429-always": ("failed", "HTTP 429"),
    "/500-then-good": ("ok", ""), "/500-always": ("failed", "HTTP 500"), "/503-date": ("ok", ""),
    "/599": ("failed", "HTTP 599"),
    "/204": ("refused", "HTTP 204"),
    "/drip": ("failed", "longer than"), "/drip-head": ("failed", "longer than"),
    "/drip-chunks": ("failed", "longer than"),
    "/silent": ("failed", "longer than"), "/endless": ("rejected", "more than"), "/endless-head": ("failed", "damaged"),
    "/says-long": ("rejected", "more than"), "/too-long.png": ("rejected", "more than"),
    "/gzip-bomb": ("rejected", "more than"),
    "/gzip-honest": ("ok", ""), "/gzip-broken": ("failed", "damaged"),
    "/closes-early": ("failed", "bytes missing"), "/hangs-up": ("failed", "server closed"),
    "/no-http": ("failed", "damaged"),
    "/wrong-type": ("ok", ""), "/no-ending": ("ok", ""), "/png.jpg": ("ok", ""),
    "/html.jpg": ("rejected", "an HTML page"), "/svg.png": ("rejected", "an SVG"),
    "/empty.jpg": ("rejected", "empty"), "/avif.jpg": ("rejected", "AVIF"),
    "/loop": ("refused", "redirects"), "/chain/3": ("ok", ""), "/chain/9": ("refused", "redirects"),
    "/to-private": ("refused", "10.0.0.1 is no public"), "/to-metadata": ("refused", "169.254.169.254 is no public"),
    "/to-file": ("refused", "only http"), "/to-nothing": ("refused", "HTTP 302"),
    "/to-garbage": ("refused", "no URL"), "/relative": ("ok", ""),
    "/truncated.jpg": ("rejected", "broken"), "/holed.jpg": ("rejected", "broken"),
    "/holed.png": ("rejected", "broken"), "/cut.jpg": ("rejected", "broken"),
    "/bomb.png": ("rejected", "huge: 13000x13000"), "/pixel.gif": ("rejected", "tiny: 1x1"),
    "/get?id=1": ("ok", ""), "/get?id=2&u=http://x/y.jpg": ("ok", ""), "/a%20b/c%2Fd.jpg": ("ok", ""),
    "/한국/사진.jpg": ("ok", ""), "/100%.jpg": ("ok", ""),
    **{f"/same/{i}/photo.jpg": ("ok", "") for i in range(8)},
    "/again": ("duplicate", "same bytes"), "/smaller": ("ok", ""),   # near duplicates are the business of crawl_images
    # What a header or a body says that nobody expects
    "/retry-odd": ("failed", "HTTP 503"), "/retry-endless": ("failed", "HTTP 503"),
    "/retry-past": ("failed", "HTTP 503"), "/chunks": ("ok", ""), "/chunk-word": ("failed", "damaged"),
    "/chunk-negative": ("failed", "damaged"), "/chunk-huge": ("failed", "damaged"),
    "/chunk-short": ("failed", "damaged"), "/chunk-endless-head": ("failed", "damaged"), "/gzip-tail": ("ok", ""),
    "/gzip-cut": ("failed", "damaged"), "/brotli": ("rejected", "unknown"), "/length-negative": ("ok", ""),
    "/length-word": ("ok", ""), "/status-word": ("failed", "damaged"), "/status-999": ("failed", "HTTP 999"),
    "/location-long": ("failed", "damaged"), "/header-bytes": ("ok", ""),
    # Opt-outs
    "/noai": ("refused", "X-Robots-Tag: noai"), "/noindex": ("refused", "noindex"),
    "/noimageai": ("refused", "noimageai"), "/noai-others": ("ok", ""), "/nofollow": ("ok", ""),
    # Pictures as they really come
    "/stray.jpg": ("ok", ""), "/thumb-holed.jpg": ("rejected", "broken"), "/scans.jpg": ("rejected", "huge"),
    "/clear.png": ("ok", ""), "/deep.png": ("ok", ""), "/exif-odd.jpg": ("ok", ""), "/moving.gif": ("ok", ""),
    "/cmyk.jpg": ("ok", ""), "/json.jpg": ("rejected", "JSON"), "/pdf.jpg": ("rejected", "PDF"),
    "/heic.jpg": ("rejected", "HEIC"), "/tiff.jpg": ("rejected", "TIFF"), "/bmw.bmp": ("rejected", "unknown"),
    "http://192.0.0.8/": ("refused", "no public"), "http://192.88.99.1/": ("refused", "no public"),
    "http://168.63.129.16/": ("refused", "no public"), "http://[3fff::1]/": ("refused", "no public"),
    "http://[64:ff9b::a00:1]/": ("refused", "no public"),
    "file:///etc/passwd": ("refused", "only http"), "ftp://127.0.0.1/a.jpg": ("refused", "only http"),
    "data:image/png;base64,iVBORw0KGgo=": ("refused", "only http"),
    "http://10.0.0.1/a.jpg": ("refused", "10.0.0.1 is no public"),
    "http://[::ffff:192.168.0.1]/": ("refused", "no public"),
    "http://0.0.0.0/": ("refused", "0.0.0.0 is no public"), "http://user:word@192.168.1.1/": ("refused", "no public"),
    "http://127.0.0.1:1/closed.jpg": ("failed", "refused"),
    "http://no-such-host.invalid/a.jpg": ("failed", "no such host"),
    "http://[::1": ("refused", "no URL"), "not a url": ("refused", "only http"), "": ("refused", "only http"),
}
LIMITS = dict(allow_local=True, per_host=64, workers=64, max_time=2., timeout=5., max_bytes=200_000, retries=2,
              backoff=.02)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True   # as every real server does; with it, kept connections wait 40 ms for nothing

    def send(self, body: bytes, status=200, **headers):
        self.send_response(status)
        for k, v in headers.items(): self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def raw(self, data: bytes):
        "Bytes as they are; the connection is closed afterwards."
        self.close_connection = True
        self.wfile.write(data)
        self.wfile.flush()

    def drip(self, data: bytes, seconds=.05):
        "One byte at a time."
        for i in range(len(data)):
            self.raw(data[i:i+1])
            time.sleep(seconds)
            if self.server.stopped: return

    def send_error(self, code, message=None, explain=None): self.send(b"", code)

    def log_message(self, *args): pass

    def do_GET(self):
        web, path = self.server.web, self.path
        with web.lock:
            web.counts[path] += 1
            web.times.setdefault(path, []).append(time.monotonic())
            web.busy += 1
            web.most_busy = max(web.most_busy, web.busy)
        try:
            if web.latency: time.sleep(web.latency)
            self.answer(path, web.counts[path])
        except (BrokenPipeError, ConnectionResetError): pass   # the client had enough
        finally:
            with web.lock: web.busy -= 1

    def answer(self, path: str, n: int):
        "`n`: how often this path has been asked for."
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"
        url = urlsplit(path)
        parts = url.path.strip("/").split("/")
        first = parts[0]
        if first == "ok": return self.send(picture(int(parts[1].split(".")[0])), Content_Type="image/jpeg")
        if first == "photo": return self.send(photo(int(parts[1].split(".")[0])), Content_Type="image/jpeg")
        if first == "counts": return self.send(json.dumps(self.server.web.counts).encode())
        if first == "ddg": return self.search(url, n)
        if first in ("403", "404", "410", "599"): return self.send(b"<html>no", int(first))
        if first == "204": return self.send(b"", 204)
        if first == "429-soon": return self.send(b"", 429, Retry_After="1") if n == 1 else self.send(picture(1))
        if first == "429-hour": return self.send(b"", 429, Retry_After="3600")
        if first == "429-always": return self.send(b"", 429, Retry_After="0")
        if first == "500-then-good": return self.send(b"", 500) if n == 1 else self.send(picture(2))
        if first == "500-always": return self.send(b"", 500)
        if first == "503-date":
            return self.send(b"", 503, Retry_After=self.date_time_string()) if n == 1 else self.send(picture(3))
        if first == "drip":
            self.raw(head+b"Content-Length: 5000\r\n\r\n")
            return self.drip(picture(4))
        if first == "drip-head": return self.drip(head*100)
        if first == "drip-chunks":
            self.raw(head+b"Transfer-Encoding: chunked\r\n\r\n")
            return self.drip(b"".join(b"1\r\n"+picture(4)[i:i+1]+b"\r\n" for i in range(500)), .02)
        if first == "silent": return self.server.quit.wait(3)
        if first == "endless":
            self.raw(head+b"\r\n"+picture(5))
            while not self.server.stopped: self.raw(bytes(65536))
        if first == "endless-head":
            self.raw(head)
            while not self.server.stopped: self.raw(b"X-More: "+b"a"*1000+b"\r\n")
        if first == "says-long": return self.raw(head+b"Content-Length: 99999999999\r\n\r\n"+picture(5))
        if first == "too-long.png": return self.send(LARGE)
        if first == "gzip-bomb": return self.send(gzip.compress(picture(5)+bytes(50_000_000)), Content_Encoding="gzip")
        if first == "gzip-honest": return self.send(gzip.compress(picture(6)), Content_Encoding="gzip")
        if first == "gzip-broken": return self.send(b"this is not gzip", Content_Encoding="gzip")
        if first == "closes-early": return self.raw(head+b"Content-Length: 90000\r\n\r\n"+picture(7))
        if first == "hangs-up": return self.raw(b"")
        if first == "no-http": return self.raw(b"SSH-2.0-OpenSSH_9.6\r\n")
        if first == "wrong-type": return self.send(picture(8), Content_Type="text/html")
        if first == "no-ending": return self.send(encoded(noise(9), "WEBP"))
        if first == "png.jpg": return self.send(PNG, Content_Type="image/jpeg")
        if first == "html.jpg":
            return self.send(b"<!DOCTYPE html><title>Log in</title>"+b" "*5000, Content_Type="image/jpeg")
        if first == "svg.png": return self.send(b"<svg xmlns='http://www.w3.org/2000/svg'/>", Content_Type="image/png")
        if first == "empty.jpg": return self.send(b"")
        if first == "avif.jpg": return self.send(b"\0\0\0 ftypavif"+bytes(100))
        if first == "loop": return self.send(b"", 302, Location="/loop")
        if first == "chain":
            left = int(parts[1])
            return self.send(b"", 301, Location=f"/chain/{left-1}") if left else self.send(picture(10))
        if first == "to-private": return self.send(b"", 302, Location="http://10.0.0.1/admin.jpg")
        if first == "to-metadata": return self.send(b"", 307, Location="http://169.254.169.254/latest/meta-data/")
        if first == "to-file": return self.send(b"", 302, Location="file:///etc/passwd")
        if first == "to-nothing": return self.send(b"", 302)
        if first == "to-garbage": return self.send(b"", 302, Location="http://[::1")
        if first == "relative": return self.send(b"", 303, Location="ok/11.jpg?a b")
        if first == "truncated.jpg": return self.send(picture(12)[:-800])
        if first == "holed.jpg": return self.send(holed(encoded(noise(13, (400, 300)), quality=95), 400))
        if first == "cut.jpg":
            data = encoded(noise(13, (400, 300)), quality=95)
            return self.send(data[:len(data)//2]+data[len(data)//2+400:])
        if first == "holed.png": return self.send(holed(PNG, 100))
        if first == "bomb.png": return self.send(bomb())
        if first == "pixel.gif": return self.send(encoded(Image.new("P", (1, 1)), "GIF"))
        if first == "retry-odd": return self.send(b"", 503, Retry_After="\u00b2")
        if first == "retry-endless": return self.send(b"", 503, Retry_After="9"*400)
        if first == "retry-past": return self.send(b"", 503, Retry_After="Mon, 01 Jan 0001 00:00:00 -2359")
        chunked = head+b"Transfer-Encoding: chunked\r\n\r\n"
        def chunk(data): return b"%x;odd=1\r\n%s\r\n" % (len(data), data)
        if first == "chunks":
            return self.raw(chunked+chunk(picture(42)[:999])+chunk(picture(42)[999:])+b"0\r\nMore: 1\r\n\r\n")
        if first == "chunk-word": return self.raw(chunked+chunk(picture(42)[:999])+b"many\r\n"+picture(42))
        if first == "chunk-negative": return self.raw(chunked+chunk(picture(42)[:999])+b"-1\r\n"+LARGE)
        if first == "chunk-huge": return self.raw(chunked+b"ffffffffffffffff\r\n"+picture(42))
        if first == "chunk-short": return self.raw(chunked+b"ffff\r\n"+picture(42))
        if first == "chunk-endless-head": return self.raw(chunked+b"1"*100_000)
        if first == "gzip-tail": return self.send(gzip.compress(picture(43))+bytes(150_000), Content_Encoding="gzip")
        if first == "gzip-cut": return self.send(gzip.compress(picture(44))[:-900], Content_Encoding="gzip")
        if first == "brotli": return self.send(bytes(range(200)), Content_Encoding="br")
        if first == "length-negative": return self.raw(head+b"Content-Length: -5\r\n\r\n"+picture(45))
        if first == "length-word": return self.raw(head+b"Content-Length: some\r\n\r\n"+picture(46))
        if first == "status-word": return self.raw(b"HTTP/1.1 fine OK\r\n\r\n"+picture(46))
        if first == "status-999": return self.raw(b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n")
        if first == "location-long": return self.raw(b"HTTP/1.1 302 Found\r\nLocation: /"+b"a"*100_000+b"\r\n\r\n")
        if first == "header-bytes":
            return self.raw(head+b"X-\xff\xfe: \x80\xff\r\nContent-Length: %d\r\n\r\n" % len(picture(47))+picture(47))
        if first in ("noai", "noindex", "noimageai"):
            return self.send(picture(48), X_Robots_Tag=f"nofollow, {first.upper()}")
        if first == "noai-others": return self.send(picture(48), X_Robots_Tag="otherbot: noai, noindex")
        if first == "nofollow": return self.send(picture(49), X_Robots_Tag="nofollow")
        if first == "stray.jpg": return self.send(GOOD[:-2]+b"\1\2\3"+GOOD[-2:])
        if first == "thumb-holed.jpg":
            data, n = with_part(GOOD, picture(50)), len(GOOD)//2
            return self.send(data[:-n]+bytes(400)+data[400-n:])
        if first == "scans.jpg": return self.send(many_scans())
        if first == "clear.png": return self.send(drawing())
        if first == "deep.png":
            return self.send(encoded(Image.fromarray(np.asarray(noise(51).convert("L")).astype(np.uint16)*16), "PNG"))
        if first == "exif-odd.jpg": return self.send(with_part(picture(52), b"II*\0\x08\0\0\0\xff\xff\x12\x01"))
        if first == "moving.gif": return self.send(encoded(noise(53), "GIF", save_all=True, append_images=[noise(54)]))
        if first == "cmyk.jpg": return self.send(encoded(noise(55).convert("CMYK")))
        if first == "json.jpg": return self.send(b'{"error": "log in first"}')
        if first == "pdf.jpg": return self.send(b"%PDF-1.7\n"+bytes(100))
        if first == "heic.jpg": return self.send(b"\0\0\0 ftypheic"+bytes(100))
        if first == "tiff.jpg": return self.send(encoded(noise(56), "TIFF"))
        if first == "bmw.bmp": return self.send(b"BMW is a maker of cars and motorcycles")
        if first == "busy": return self.send(b"", 503, Retry_After="1")
        if first == "get": return self.send(picture(14 if url.query == "id=1" else 15))
        if path == "/a%20b/c%2Fd.jpg": return self.send(picture(16))
        if path == "/%ED%95%9C%EA%B5%AD/%EC%82%AC%EC%A7%84.jpg": return self.send(picture(17))
        if path == "/100%25.jpg": return self.send(picture(18))
        if first == "same": return self.send(picture(20+int(parts[1])))
        if first == "again": return self.send(picture(20))
        if first == "smaller": return self.send(encoded(noise(20).resize((64, 48)), quality=60))
        if first == "copy": return self.send(encoded(noise(int(parts[1])).resize((72, 54)), quality=70))
        if first == "flaky": return self.send(b"", 500) if n == 1 else self.send(picture(int(parts[1])))
        self.send(b"", 404)

    def search(self, url, n):
        "The two requests of the search engine: a page with a token, then JSON, 100 records a page."
        web, q = self.server.web, {k: v[0] for k, v in parse_qs(url.query).items()}
        web.asked.append((url.path, q))
        if web.refusals:
            web.refusals -= 1
            return self.send(b"<html>are you a robot?", web.refuse_with)
        if not url.path.endswith("i.js"): return self.send(f'<script>vqd="4-{len(q["q"])}"</script>'.encode())
        total, start = web.results.get(q["q"], 0), int(q.get("s", 0))
        if q["vqd"] != f'4-{len(q["q"])}': return self.send(b"", 403)
        rows = [dict(image=f"https://img.example/{i}%20a.jpg?w=100%25&i={i}", thumbnail=f"https://t.example/{i}",
                     url=f"https://page.example/{i}", title=f"{q['q']} {i}",
                     width=640, height=480, source="Bing") for i in range(start, min(total, start+100))]
        if q["q"] == "again": return self.send(json.dumps({"results": rows[:5], "next": "i.js?s=0"}).encode())
        more = {"next": f"i.js?q={q['q']}&o=json&s={start+100}&vqd={q['vqd']}"} if start+100 < total else {}
        self.send(json.dumps({"results": rows, "query": q["q"], **more}).encode(),
                  Content_Type="application/x-javascript")


class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size, stopped = True, 256, False

    @cached_property
    def quit(self): return threading.Event()

    def handle_error(self, request, client_address): pass   # a client that hangs up is no news


class Web:
    "The server in a thread of this process."
    def __init__(self, latency=0.):
        self.latency, self.lock, self.counts, self.times = latency, threading.Lock(), Counter(), {}
        self.busy = self.most_busy = 0
        self.results, self.refusals, self.refuse_with, self.asked = {}, 0, 403, []
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.web = self
        self.site = f"http://127.0.0.1:{self.server.server_port}"

    def url(self, path):
        "The whole URL. The host that wants an hour of peace has another name, so that the rest may still be asked."
        site = self.site.replace("127.0.0.1", "localhost") if path == "/429-hour" else self.site
        return site+path if path.startswith("/") else path

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs=dict(poll_interval=.02), daemon=True).start()
        return self

    def __exit__(self, *args):
        self.server.stopped = True
        self.server.quit.set()
        self.server.shutdown()
        self.server.server_close()


def main():
    if sys.argv[1:2] == ["serve"]:
        with Web(float(sys.argv[2])) as web:
            print(web.site, flush=True)
            threading.Event().wait()
    import tempfile
    from fastcourse.download import download_images
    with Web() as web, tempfile.TemporaryDirectory() as tmp:
        start = time.monotonic()
        df = download_images([web.url(o) for o in ("/same/0/photo.jpg", *CASES)], tmp, **LIMITS)[1:]
        took = time.monotonic()-start
        print("| case | status | reason | kept as |\n|---|---|---|---|")
        for case, o in zip(CASES, df.itertuples()): print(f"| {case[:40]} | {o.status} | {o.reason} | {o.file[-4:]} |")
        print(f"\n{len(df)} cases, {took:.1f} s")


if __name__ == "__main__": main()

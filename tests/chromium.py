"""Chromium as visitors have it: no host but this machine, a width, a language, and what it asked and complained of."""
import json
import shutil
import time
from pathlib import Path

import pytest

browser = pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")),
                             reason="chromium and its driver are not installed")
FAKE_CAMERA = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"


def chromium(profile: Path, *flags: str, log: tuple = ("browser", "performance")):
    "A new Chromium without a window. It takes seconds, so a file of tests shares one; `look_as` makes another visitor."
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for o in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900",
              f"--user-data-dir={profile}", "--disable-background-networking", "--disable-component-update",
              "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", *flags): options.add_argument(o)
    options.set_capability("goog:loggingPrefs", dict.fromkeys(log, "ALL"))
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(180)
    driver.set_script_timeout(120)
    driver.get("about:blank")
    for o in log: driver.get_log(o)   # of the browser's own first page
    return driver


def look_as(driver, width: int = 1200, height: int = 900, language: str = "en", scheme: str = "light"):
    "From now on a visitor with such a screen (a phone below 600 pixels) who speaks `language`; forgets the last page."
    do = driver.execute_cdp_cmd
    agent = do("Browser.getVersion", {})["userAgent"]
    do("Emulation.setUserAgentOverride", dict(userAgent=agent, acceptLanguage=language))
    do("Emulation.setDeviceMetricsOverride", dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600))
    do("Emulation.setEmulatedMedia", dict(features=[dict(name="prefers-color-scheme", value=scheme)]))
    driver.get("about:blank")
    driver.get_log("performance"), driver.get_log("browser")
    return driver


def wait(driver, condition: str, seconds: float = 100):
    "Until the JavaScript `condition` holds; gives back its value."
    end = time.monotonic()+seconds
    while not (value := driver.execute_script(f"return {condition}")):
        assert time.monotonic() < end, f"{condition} takes too long"
        time.sleep(0.1)
    return value


def quiet(driver, root: str):
    "Nobody but `root` was asked for anything, and the console is empty."
    asked = [json.loads(o["message"])["message"] for o in driver.get_log("performance")]
    urls = {o["params"]["request"]["url"] for o in asked if o["method"] == "Network.requestWillBeSent"}
    assert all(u.startswith((root, "data:", "blob:", "about:")) for u in urls), urls
    assert [o for o in driver.get_log("browser") if o["level"] != "DEBUG" and "favicon.ico" not in o["message"]] == []

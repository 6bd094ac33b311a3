"""A notebook in a real Jupyter kernel, which is not nbdev's shell."""
from nbclient import NotebookClient


class Kernel(NotebookClient):
    "Runs a notebook, and keeps every piece of HTML that was shown on the way, also what was replaced later."
    def __init__(self, nb, **kw):
        super().__init__(nb, kernel_name="python3", timeout=900, **kw)
        self.html = []

    def process_message(self, msg, cell, cell_index):
        html = msg["content"].get("data", {}).get("text/html") if msg["msg_type"] in ("display_data",
                                                                                      "update_display_data") else None
        if html: self.html.append(html)
        return super().process_message(msg, cell, cell_index)

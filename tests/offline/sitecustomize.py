"""Put this folder on PYTHONPATH and Python can reach this machine only.

Every test runs with it, notebooks and child processes too, so that nothing can depend on a network.
"""
import ipaddress
import socket

_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def _is_here(host) -> bool:
    "True for a loopback address; any other name counts as the network."
    if host in (None, "", "localhost"): return True
    try: return ipaddress.ip_address(host).is_loopback
    except ValueError: return False


def _check(sock, address):
    if sock.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
        raise OSError(f"the tests block the network: connection to {address[0]!r}")


def connect(self, address):
    _check(self, address)
    return _connect(self, address)


def connect_ex(self, address):
    _check(self, address)
    return _connect_ex(self, address)


def getaddrinfo(host, *args, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if not _is_here(name):
        try: ipaddress.ip_address(name)   # a numeric address needs no look-up
        except ValueError: raise socket.gaierror(f"the tests block the network: look-up of {name!r}") from None
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, getaddrinfo

"""The Coordinator's HTTP face: status, health, metrics, tasks, and a page a person can look at."""

from seedcore.http.app import create_app
from seedcore.http.server import HttpServer, ListenError
from seedcore.http.view import CoordinatorView

__all__ = ["CoordinatorView", "HttpServer", "ListenError", "create_app"]

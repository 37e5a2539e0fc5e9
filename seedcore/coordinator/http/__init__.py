"""The Coordinator's HTTP interface: status, health, metrics, tasks, and a web page."""

from seedcore.coordinator.http.app import create_app
from seedcore.coordinator.http.listener import ListenError
from seedcore.coordinator.http.server import HttpServer
from seedcore.coordinator.http.view import CoordinatorView

__all__ = ["CoordinatorView", "HttpServer", "ListenError", "create_app"]

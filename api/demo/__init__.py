"""The demo: a province as published for 2023, its people and events generated and labelled."""

from api.demo.accounts import PASSWORD, Account
from api.demo.load import DemoError, is_empty, list_accounts, load_demo

__all__ = ["PASSWORD", "Account", "DemoError", "is_empty", "list_accounts", "load_demo"]

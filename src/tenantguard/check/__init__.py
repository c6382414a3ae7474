"""The rules that a pull request has to keep: models, policies, roles, and what goes past them."""

from tenantguard.check.examine import examine
from tenantguard.check.rule import Rule, page_of
from tenantguard.check.rules import RULES
from tenantguard.check.subject import Subject, connected

__all__ = ["RULES", "Rule", "Subject", "connected", "examine", "page_of"]

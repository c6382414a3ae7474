"""The live probe: tries to cross tenants as the application, and rolls back."""

from tenantguard.prove.plan import planned
from tenantguard.prove.proof import Proof, Samples, State, TableProof
from tenantguard.prove.prove import prove

__all__ = ["Proof", "Samples", "State", "TableProof", "planned", "prove"]

"""Being told that another process has changed keys, instead of finding out in time.

What is told is that keys have changed, never whose. Who is not told is no worse off than without:
`keystore` asks the table again after some minutes.
"""

from tenantguard.following.channel import channel_of, telling
from tenantguard.following.follower import KeyFollower
from tenantguard.following.guarded import GuardedKeys

__all__ = ["GuardedKeys", "KeyFollower", "channel_of", "telling"]

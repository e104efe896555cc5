"""What a snapshot says about people and machines, replaced so that the answers of the looking commands stay. Pure.

The same secret becomes the same token, within one snapshot only: tokens are made with a key that is thrown away. A
token has the form of what it stands for where the form is read (UUIDs, addresses of the network); networks still
contain the addresses that they contained.
"""

from vfioctl.policy.redaction.files import Files
from vfioctl.policy.redaction.tokens import Tokens

__all__ = ["Files", "Tokens"]

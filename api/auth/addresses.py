"""Whose line a request came over."""

import ipaddress


def network_of(address: str) -> str:
    """Return the address, or the /64 of IPv6: one line has as many addresses there as it likes."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)

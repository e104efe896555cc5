"""Devices that Linux knows to isolate although they do not say so, or to do DMA under the name of others: data.

From drivers/pci/quirks.c of Linux 7.3 (pci_dev_acs_enabled and the fixups that call pci_add_dma_alias), whose table
stable kernels have, too; to be kept by reading it again when it has grown. What is missing here is no danger: a group
that the kernel makes for a quirk that is not known here is reported as one that differs. The aliases of Switchtec's
bridges (quirk_switchtec_ntb_dma_alias) stand in the device's own memory, and are not known.
"""

from __future__ import annotations

from collections.abc import Iterator


def _devices(text: str) -> frozenset[tuple[str, str]]:
    """Lines of a vendor and its devices, one by one or from-to, all of them hexadecimal."""
    return frozenset(
        (vendor, device)
        for line in text.strip().splitlines()
        for vendor, _, listed in [line.strip().partition(": ")]
        for device in _expanded(listed)
    )


def _expanded(text: str) -> Iterator[str]:
    for word in text.split():
        first, _, last = word.partition("-")
        yield from (f"{n:04x}" for n in range(int(first, 16), int(last or first, 16) + 1))


#: Their vendor says that their functions do not talk to each other: pci_quirk_mf_endpoint_acs.
ISOLATED_FUNCTIONS = _devices("""
    1924: 0903 0923 0a03
    8086: 10c6 10db 10dd 10e1 10f1 10f7-10fc 1507 1514 151c 1529 152a 154d 154f 1551 1558 1509 150e-1511 1516 1527
    8086: 10c9 10e6-10e8 150a 150d 1518 1526 10a7 10a9 10d6 1521-1524 105e-1060 10d9 15b7 15b8
    19a2: 0710
    10df: 0720
    177d: a026 a059 a060
    14e4: 16d7 1750-1752 1760-1763
    1d17: 3038 3104 9083
""")
#: pci_quirk_wangxun_nic_acs; all others of this vendor do not isolate.
WANGXUN = "8088"
WANGXUN_ISOLATED = _devices("8088: 0100-010f 1001 2001 5010 5025 5040 5110 5125 5140")
#: Wired to send everything upwards: pci_quirk_qcom_rp_acs, xgene, brcm, loongson, nxp_rp.
ISOLATED_PORTS = _devices("""
    17cb: 0400 0401 0115 0111 0120
    1dbf: 0401
    10e8: e004
    1def: e005-e00c
    14e4: d714
    0014: 3c09 3c19 3c29 7a09 7a19 7a29 7a39 7a49 7a59 7a69
    1957: 8d80-8d83 8d88-8d8b 8d90-8d93 8d98-8d9b 8da0 8da1 8da8 8da9 8db0 8db1 8db8 8db9
""")
#: The same, of root ports only: pci_quirk_cavium_acs, pci_quirk_al_acs.
ISOLATED_ROOT_PORTS = _devices("""
    177d: a000-a7ff af84 b884
    1c36: 0031
""")
#: pci_quirk_zhaoxin_pcie_ports_acs, of root and downstream ports; all others of this vendor do not isolate.
ZHAOXIN = "1d17"
ZHAOXIN_ISOLATED = _devices("1d17: 0710-071e 0721 0723-0752")
#: Integrated endpoints of this vendor isolate: pci_quirk_rciep_acs.
INTEL = "8086"
#: Root ports that the kernel programs to isolate, when it may: pci_quirk_intel_pch_acs_ids.
INTEL_PCH = _devices("""
    8086: 3b42-3b51 1c10-1c1f 1e10-1e1f 8c10-8c1f 9c10-9c1b 9c90-9c9b 1d10 1d12 1d14 1d16 1d18 1d1a 1d1c 1d1e
    8086: 8d10-8d1e 8c90 8c92 8c94 8c96 8c98 8c9a 8c9c 8c9e
""")
#: Root ports whose ACS registers are twice as wide as they should be: pci_quirk_intel_spt_pch_acs_match.
WIDE_ACS = _devices("8086: a110-a11f a167-a16a a290-a29f a2e7-a2ee 9d10-9d1b")
#: Functions of southbridges on the root bus, where there is AMD-Vi: pci_quirk_amd_sb_acs.
AMD_SOUTHBRIDGE = _devices("""
    1002: 4385 439c 4383 439d 4384 4399
    1022: 780f 7809
""")

#: DMA under the name of function 0 or 1 of the slot, or of all functions of the bus.
ALIAS_FUNCTION_0 = _devices("""
    1180: e832 e476
    6766: 3d40 3d41
""")
ALIAS_FUNCTION_1 = _devices("""
    1b4b: 9120 9123 9125 9128 9130 9170 9172 917a 9182 9183 91a0 9215 9220 9230 9235
    1103: 0642 0645
    197b: 2392
    1c28: 0122
""")
ALIAS_ALL = _devices("10b5: 87b0 87b1")
ALIAS_MIC_X200 = _devices("8086: 2260 2264")
ALIAS_PEX_VCA = _devices("8086: 2954 2955 2956 2958 2959 295a")
#: DMA under the name 01.0, of some subsystems only: quirk_fixed_dma_alias.
ALIAS_FIXED = _devices("9005: 0285")
ALIAS_FIXED_SUBSYSTEMS = _devices("9005: 02bb 02bc")

#: Bridges above which there is nothing to translate: quirk_bridge_cavm_thrx2_pcie_root.
TRANSLATION_ROOTS = _devices("14e4: 9000 9084")
#: Bridges to conventional PCI that keep the names of what is behind: quirk_aspeed_pci_bridge_no_alias.
NO_ALIAS_BRIDGES = _devices("1a03: 1150")

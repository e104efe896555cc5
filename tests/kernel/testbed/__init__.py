"""Real Debian kernels in an emulated machine, for the tests under ``tests/kernel/guest``.

``debian`` finds and downloads the packages, ``kernel`` makes them bootable, ``root`` is what a guest of another
architecture runs, ``machine`` and ``foreign`` say what hardware there is, ``guest`` runs one virtual machine,
``host_plugin`` and ``guest_plugin`` are the two ends of pytest.
"""

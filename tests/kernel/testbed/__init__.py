"""Real Debian kernels in an emulated machine, for the tests under ``tests/kernel/guest``.

``debian`` finds and downloads the packages, ``image`` makes them bootable, ``machine`` says what hardware
there is, ``guest`` runs one virtual machine, ``host_plugin`` and ``guest_plugin`` are the two ends of pytest.
"""

"""The test machines: a Debian-based OS in A/B slots, a boot loader for it, and QEMU to run it.

Images are built from Debian packages by root on Debian 12, and kept by the content of what went into them.
"""

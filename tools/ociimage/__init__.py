"""The container image without a container engine: an OCI archive from Debian packages and the locked wheels.

The same inputs give the same bytes, whoever builds it, where and when. The Dockerfile makes its file system by the same
code (`python3 -m ociimage root`), and says again what the image's configuration is.
"""

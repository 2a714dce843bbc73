"""The `openstack` driver: Nova servers as machines."""

resource "openstack_networking_network_v2" "agents" {
  name           = "${var.name}-agents"
  admin_state_up = true
}

resource "openstack_networking_subnet_v2" "agents" {
  name       = "${var.name}-agents"
  network_id = openstack_networking_network_v2.agents.id
  cidr       = var.cidr
  ip_version = 4
}

data "openstack_networking_network_v2" "out" {
  count = var.external_network == "" ? 0 : 1

  name     = var.external_network
  external = true
}

resource "openstack_networking_router_v2" "out" {
  count = var.external_network == "" ? 0 : 1

  name                = "${var.name}-agents"
  admin_state_up      = true
  external_network_id = data.openstack_networking_network_v2.out[0].id
}

resource "openstack_networking_router_interface_v2" "out" {
  count = var.external_network == "" ? 0 : 1

  router_id = openstack_networking_router_v2.out[0].id
  subnet_id = openstack_networking_subnet_v2.agents.id
}

# Agents dial out and nobody dials in. Neutron's own rules of a new group (everything out) are removed.
resource "openstack_networking_secgroup_v2" "agents" {
  name                 = "${var.name}-agents"
  description          = "Atoll agents: out to the control plane and DNS, nothing in"
  delete_default_rules = true
}

locals {
  # cloud-init asks the metadata service, which is reached over HTTP at its link-local address.
  out = {
    control  = { protocol = "tcp", port = var.control_port, to = "0.0.0.0/0" }
    dns      = { protocol = "udp", port = 53, to = "0.0.0.0/0" }
    dns_long = { protocol = "tcp", port = 53, to = "0.0.0.0/0" }
    metadata = { protocol = "tcp", port = 80, to = "169.254.169.254/32" }
  }
}

resource "openstack_networking_secgroup_rule_v2" "out" {
  for_each = local.out

  security_group_id = openstack_networking_secgroup_v2.agents.id
  direction         = "egress"
  ethertype         = "IPv4"
  protocol          = each.value.protocol
  port_range_min    = each.value.port
  port_range_max    = each.value.port
  remote_ip_prefix  = each.value.to
}

data "openstack_images_image_v2" "machine" {
  name        = var.image
  most_recent = true
}

# Restricted: it can make no further credential, and ends with the user and project it belongs to.
resource "openstack_identity_application_credential_v3" "atoll" {
  name         = "${var.name}-atoll"
  description  = "Atoll's control plane"
  roles        = var.roles
  expires_at   = var.expires_at
  unrestricted = false

  dynamic "access_rules" {
    for_each = var.access_rules

    content {
      service = access_rules.value.service
      method  = access_rules.value.method
      path    = access_rules.value.path
    }
  }
}

data "azurerm_subscription" "here" {}

# Atoll's machines, disks and interfaces are made in this group and nowhere else.
resource "azurerm_resource_group" "agents" {
  name     = "${var.name}-agents"
  location = var.region
  tags     = var.tags
}

resource "azurerm_virtual_network" "agents" {
  name                = "${var.name}-agents"
  resource_group_name = azurerm_resource_group.agents.name
  location            = azurerm_resource_group.agents.location
  address_space       = [var.cidr]
  tags                = var.tags
}

resource "azurerm_subnet" "agents" {
  name                 = "agents"
  resource_group_name  = azurerm_resource_group.agents.name
  virtual_network_name = azurerm_virtual_network.agents.name
  address_prefixes     = [var.cidr]
}

# Agents dial out and nobody dials in: Azure's own rules (all within the network, all out) stand below these.
resource "azurerm_network_security_group" "agents" {
  name                = "${var.name}-agents"
  resource_group_name = azurerm_resource_group.agents.name
  location            = azurerm_resource_group.agents.location
  tags                = var.tags
}

locals {
  rules = {
    control     = { priority = 100, direction = "Outbound", access = "Allow", protocol = "Tcp", port = tostring(var.control_port) }
    dns         = { priority = 110, direction = "Outbound", access = "Allow", protocol = "*", port = "53" }
    nothing-out = { priority = 4096, direction = "Outbound", access = "Deny", protocol = "*", port = "*" }
    nothing-in  = { priority = 4096, direction = "Inbound", access = "Deny", protocol = "*", port = "*" }
  }
}

resource "azurerm_network_security_rule" "agents" {
  for_each = local.rules

  name                        = each.key
  resource_group_name         = azurerm_resource_group.agents.name
  network_security_group_name = azurerm_network_security_group.agents.name
  priority                    = each.value.priority
  direction                   = each.value.direction
  access                      = each.value.access
  protocol                    = each.value.protocol
  source_port_range           = "*"
  destination_port_range      = each.value.port
  source_address_prefix       = "*"
  destination_address_prefix  = "*"
}

resource "azurerm_subnet_network_security_group_association" "agents" {
  subnet_id                 = azurerm_subnet.agents.id
  network_security_group_id = azurerm_network_security_group.agents.id
}

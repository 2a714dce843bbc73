resource "azuread_application" "atoll" {
  display_name = "${var.name}-atoll"
}

resource "azuread_service_principal" "atoll" {
  client_id = azuread_application.atoll.client_id
}

resource "azuread_application_password" "atoll" {
  application_id = azuread_application.atoll.id
  display_name   = "Atoll's control plane"
  end_date       = var.secret_until
}

# The same rights as `atoll provider doctor` prints.
resource "azurerm_role_definition" "machines" {
  name              = "${var.name} Atoll machines"
  scope             = azurerm_resource_group.agents.id
  description       = "Make, stop, start and delete machines with their disks and interfaces, in this group only"
  assignable_scopes = [azurerm_resource_group.agents.id]

  permissions {
    actions = [
      "Microsoft.Authorization/permissions/read",
      "Microsoft.Compute/disks/delete",
      "Microsoft.Compute/disks/read",
      "Microsoft.Compute/disks/write",
      "Microsoft.Compute/virtualMachines/deallocate/action",
      "Microsoft.Compute/virtualMachines/delete",
      "Microsoft.Compute/virtualMachines/instanceView/read",
      "Microsoft.Compute/virtualMachines/read",
      "Microsoft.Compute/virtualMachines/retrieveBootDiagnosticsData/action",
      "Microsoft.Compute/virtualMachines/start/action",
      "Microsoft.Compute/virtualMachines/write",
      "Microsoft.Network/networkInterfaces/delete",
      "Microsoft.Network/networkInterfaces/join/action",
      "Microsoft.Network/networkInterfaces/read",
      "Microsoft.Network/networkInterfaces/write",
      "Microsoft.Network/networkSecurityGroups/join/action",
      "Microsoft.Network/networkSecurityGroups/read",
      "Microsoft.Network/publicIPAddresses/delete",
      "Microsoft.Network/publicIPAddresses/join/action",
      "Microsoft.Network/publicIPAddresses/read",
      "Microsoft.Network/publicIPAddresses/write",
      "Microsoft.Network/virtualNetworks/subnets/join/action",
      "Microsoft.Network/virtualNetworks/subnets/read",
      "Microsoft.Resources/subscriptions/resourceGroups/read",
    ]
  }
}

# Machine types, images, limits and operations under way are told for the subscription only.
resource "azurerm_role_definition" "look" {
  name              = "${var.name} Atoll look"
  scope             = data.azurerm_subscription.here.id
  description       = "Read machine types, images, limits and the state of operations"
  assignable_scopes = [data.azurerm_subscription.here.id]

  permissions {
    actions = [
      "Microsoft.Compute/locations/operations/read",
      "Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read",
      "Microsoft.Compute/locations/usages/read",
      "Microsoft.Compute/skus/read",
      "Microsoft.Network/locations/operations/read",
      "Microsoft.Resources/subscriptions/read",
    ]
  }
}

resource "azurerm_role_assignment" "machines" {
  scope              = azurerm_resource_group.agents.id
  role_definition_id = azurerm_role_definition.machines.role_definition_resource_id
  principal_id       = azuread_service_principal.atoll.object_id
}

resource "azurerm_role_assignment" "look" {
  scope              = data.azurerm_subscription.here.id
  role_definition_id = azurerm_role_definition.look.role_definition_resource_id
  principal_id       = azuread_service_principal.atoll.object_id
}

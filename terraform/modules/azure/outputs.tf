output "atoll_provider" {
  description = "The provider's document: `atoll provider add --from-terraform FILE` reads it."
  sensitive   = true

  value = {
    name = var.name
    type = "azure"

    settings = {
      subscription   = data.azurerm_subscription.here.subscription_id
      resource_group = azurerm_resource_group.agents.name
      region         = azurerm_resource_group.agents.location
      zones          = var.zones
      subnet         = azurerm_subnet.agents.id
      security_group = azurerm_network_security_group.agents.id
      image          = var.image
      tags           = var.tags

      credentials = {
        tenant_id     = data.azurerm_subscription.here.tenant_id
        client_id     = azuread_application.atoll.client_id
        client_secret = azuread_application_password.atoll.value
      }
    }
  }

  # The secret is worth something only once the roles are bound.
  depends_on = [azurerm_role_assignment.machines, azurerm_role_assignment.look]
}

# One subscription and region for Atoll's machines. Credentials: as everywhere in Terraform (az login).

variable "subscription" {
  type    = string
  default = "00000000-0000-0000-0000-000000000000"
}

provider "azurerm" {
  subscription_id = var.subscription

  features {}
}

module "atoll" {
  source = "../../modules/azure"

  name   = "azure"
  region = "westeurope"
}

output "atoll_provider" {
  value     = module.atoll.atoll_provider
  sensitive = true
}

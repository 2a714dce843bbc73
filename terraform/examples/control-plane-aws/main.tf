# The control plane on a machine of its own, and the same account as a provider: no key is kept anywhere, for the
# machine's role takes the provider's role on.

variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "package" {
  description = "The wheel to install, for example `atoll[aws] @ https://files.example.com/atoll-0.1.0-py3-none-any.whl`."
  type        = string
  default     = "atoll[aws]"
}

provider "aws" {
  region = var.region
}

data "aws_caller_identity" "here" {}

module "control" {
  source = "../../modules/control-plane-aws"

  name           = "atoll"
  package        = var.package
  provider_roles = ["arn:aws:iam::${data.aws_caller_identity.here.account_id}:role/aws-atoll"]
}

module "atoll" {
  source = "../../modules/aws"

  name               = "aws"
  trusted_principals = [module.control.role_arn]
}

output "url" {
  value = module.control.url
}

output "atoll_provider" {
  value     = module.atoll.atoll_provider
  sensitive = true
}

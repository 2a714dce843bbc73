# One account and region for Atoll's machines. Credentials: as everywhere in Terraform (AWS_PROFILE, AWS_ACCESS_KEY_ID…).

variable "region" {
  type    = string
  default = "eu-central-1"
}

provider "aws" {
  region = var.region
}

module "atoll" {
  source = "../../modules/aws"

  name = "aws-${var.region}"
  tags = { team = "research" }
}

output "atoll_provider" {
  value     = module.atoll.atoll_provider
  sensitive = true
}

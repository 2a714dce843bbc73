locals {
  by_key = local.by_role ? {} : {
    access_key_id     = aws_iam_access_key.atoll[0].id
    secret_access_key = aws_iam_access_key.atoll[0].secret
  }
  taken_on = local.by_role ? { role_arn = aws_iam_role.atoll[0].arn } : {}
  told     = local.by_role && var.external_id != "" ? { external_id = var.external_id } : {}
}

output "atoll_provider" {
  description = "The provider's document: `atoll provider add --from-terraform FILE` reads it."
  sensitive   = true

  value = {
    name = var.name
    type = "aws"

    settings = {
      region          = data.aws_region.here.name
      zones           = local.zones
      image           = var.image != "" ? var.image : data.aws_ami.debian[0].id
      subnets         = { for zone in local.zones : zone => aws_subnet.agents[zone].id }
      security_groups = [aws_security_group.agents.id]
      tags            = var.tags
      credentials     = merge(local.by_key, local.taken_on, local.told)
    }
  }
}

data "aws_partition" "here" {}

data "aws_caller_identity" "here" {}

locals {
  by_role = length(var.trusted_principals) > 0
  aws     = "arn:${data.aws_partition.here.partition}"
  account = data.aws_caller_identity.here.account_id
  region  = data.aws_region.here.name
  ec2     = "${local.aws}:ec2:${local.region}:${local.account}"
  public  = "${local.aws}:ec2:${local.region}:"
  made    = [for kind in ["instance", "network-interface", "spot-instances-request", "volume"] : "${local.ec2}:${kind}/*"]

  # Whose machines: the installation's where it is known, else those of any installation here, never an untagged one.
  marked = var.owner != "" ? { test = "StringEquals", value = var.owner } : { test = "Null", value = "false" }
}

# The same rights as `atoll provider doctor` prints, on this network only: it may make what carries the owner's tag
# from the first moment on, and may end, stop and start only that.
data "aws_iam_policy_document" "rights" {
  statement {
    sid       = "Read"
    resources = ["*"]
    actions = [
      "ec2:DescribeAvailabilityZones",
      "ec2:DescribeImages",
      "ec2:DescribeInstanceTypeOfferings",
      "ec2:DescribeInstanceTypes",
      "ec2:DescribeInstances",
      "ec2:DescribeLaunchTemplateVersions",
      "ec2:DescribeRouteTables",
      "ec2:DescribeSecurityGroups",
      "ec2:DescribeSpotPriceHistory",
      "ec2:DescribeSubnets",
      "pricing:GetProducts",
      "servicequotas:ListServiceQuotas",
    ]
  }

  statement {
    sid       = "ReadPublicImages"
    actions   = ["ssm:GetParameter"]
    resources = ["${local.aws}:ssm:${local.region}::parameter/aws/service/*"]
  }

  statement {
    sid       = "LaunchOnlyTagged"
    actions   = ["ec2:RunInstances"]
    resources = local.made

    condition {
      test     = local.marked.test
      variable = "aws:RequestTag/atoll-owner"
      values   = [local.marked.value]
    }
  }

  statement {
    sid     = "LaunchOn"
    actions = ["ec2:RunInstances"]
    resources = concat(
      ["${local.public}:image/*", "${local.public}:snapshot/*", aws_security_group.agents.arn],
      [for subnet in aws_subnet.agents : subnet.arn],
    )
  }

  statement {
    sid       = "TagOnlyAtLaunch"
    actions   = ["ec2:CreateTags"]
    resources = local.made

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }
  }

  statement {
    sid       = "ChangeOnlyOwn"
    actions   = ["ec2:GetConsoleOutput", "ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances"]
    resources = ["${local.ec2}:instance/*"]

    condition {
      test     = local.marked.test
      variable = "aws:ResourceTag/atoll-owner"
      values   = [local.marked.value]
    }
  }

  # The first spot launch of an account makes EC2's own role for it.
  statement {
    sid       = "FirstSpotLaunch"
    actions   = ["iam:CreateServiceLinkedRole"]
    resources = ["${local.aws}:iam::${local.account}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"]

    condition {
      test     = "StringEquals"
      variable = "iam:AWSServiceName"
      values   = ["spot.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "rights" {
  name        = "${var.name}-atoll"
  description = "What Atoll's driver may do"
  policy      = data.aws_iam_policy_document.rights.json
  tags        = var.tags
}

data "aws_iam_policy_document" "trust" {
  count = local.by_role ? 1 : 0

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = var.trusted_principals
    }

    dynamic "condition" {
      for_each = var.external_id == "" ? [] : [var.external_id]

      content {
        test     = "StringEquals"
        variable = "sts:ExternalId"
        values   = [condition.value]
      }
    }
  }
}

resource "aws_iam_role" "atoll" {
  count = local.by_role ? 1 : 0

  name               = "${var.name}-atoll"
  description        = "Atoll's control plane in this account"
  assume_role_policy = data.aws_iam_policy_document.trust[0].json
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "rights" {
  count = local.by_role ? 1 : 0

  role       = aws_iam_role.atoll[0].name
  policy_arn = aws_iam_policy.rights.arn
}

resource "aws_iam_user" "atoll" {
  count = local.by_role ? 0 : 1

  name = "${var.name}-atoll"
  tags = var.tags
}

resource "aws_iam_user_policy_attachment" "rights" {
  count = local.by_role ? 0 : 1

  user       = aws_iam_user.atoll[0].name
  policy_arn = aws_iam_policy.rights.arn
}

resource "aws_iam_access_key" "atoll" {
  count = local.by_role ? 0 : 1

  user = aws_iam_user.atoll[0].name
}

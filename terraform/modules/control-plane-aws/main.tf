locals {
  own_network = var.subnet == ""
  subnet      = local.own_network ? aws_subnet.control[0].id : var.subnet
  host        = var.hostname != "" ? var.hostname : aws_eip.control.public_ip
}

resource "aws_vpc" "control" {
  count = local.own_network ? 1 : 0

  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(var.tags, { Name = var.name })
}

resource "aws_internet_gateway" "control" {
  count = local.own_network ? 1 : 0

  vpc_id = aws_vpc.control[0].id
  tags   = merge(var.tags, { Name = var.name })
}

resource "aws_subnet" "control" {
  count = local.own_network ? 1 : 0

  vpc_id     = aws_vpc.control[0].id
  cidr_block = var.cidr
  tags       = merge(var.tags, { Name = var.name })
}

resource "aws_route_table" "control" {
  count = local.own_network ? 1 : 0

  vpc_id = aws_vpc.control[0].id
  tags   = merge(var.tags, { Name = var.name })

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.control[0].id
  }
}

resource "aws_route_table_association" "control" {
  count = local.own_network ? 1 : 0

  subnet_id      = aws_subnet.control[0].id
  route_table_id = aws_route_table.control[0].id
}

data "aws_subnet" "control" {
  id = local.subnet
}

resource "aws_security_group" "control" {
  name        = var.name
  description = "Atoll's control plane: agents, people and pages come in on 443"
  vpc_id      = data.aws_subnet.control.vpc_id
  tags        = merge(var.tags, { Name = var.name })

  ingress {
    description = "agents, people, pages"
    protocol    = "tcp"
    from_port   = 443
    to_port     = 443
    cidr_blocks = var.callers
  }

  # Out: clouds' APIs and packages (443), Debian's signed packages (80), DNS.
  dynamic "egress" {
    for_each = { "443" = "tcp", "80" = "tcp", "53" = "udp" }

    content {
      protocol    = egress.value
      from_port   = tonumber(egress.key)
      to_port     = tonumber(egress.key)
      cidr_blocks = ["0.0.0.0/0"]
    }
  }
}

data "aws_iam_policy_document" "machine" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "control" {
  name               = "${var.name}-control"
  description        = "The machine of Atoll's control plane"
  assume_role_policy = data.aws_iam_policy_document.machine.json
  tags               = var.tags
}

data "aws_iam_policy_document" "providers" {
  count = length(var.provider_roles) > 0 ? 1 : 0

  statement {
    sid       = "BeAProvider"
    actions   = ["sts:AssumeRole"]
    resources = var.provider_roles
  }
}

resource "aws_iam_role_policy" "providers" {
  count = length(var.provider_roles) > 0 ? 1 : 0

  name   = "providers"
  role   = aws_iam_role.control.id
  policy = data.aws_iam_policy_document.providers[0].json
}

resource "aws_iam_instance_profile" "control" {
  name = "${var.name}-control"
  role = aws_iam_role.control.name
  tags = var.tags
}

# Debian's own account publishes the images.
data "aws_ami" "debian" {
  count = var.image == "" ? 1 : 0

  owners      = ["136693071363"]
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }
}

resource "aws_eip" "control" {
  domain = "vpc"
  tags   = merge(var.tags, { Name = var.name })
}

resource "aws_ebs_volume" "state" {
  availability_zone = data.aws_subnet.control.availability_zone
  size              = var.disk_gib
  type              = "gp3"
  encrypted         = true
  tags              = merge(var.tags, { Name = "${var.name}-state" })
}

resource "aws_instance" "control" {
  ami                         = var.image != "" ? var.image : data.aws_ami.debian[0].id
  instance_type               = var.instance_type
  subnet_id                   = local.subnet
  vpc_security_group_ids      = [aws_security_group.control.id]
  iam_instance_profile        = aws_iam_instance_profile.control.name
  user_data_replace_on_change = true
  tags                        = merge(var.tags, { Name = var.name })

  user_data = templatefile("${path.module}/boot.sh", {
    package = var.package
    host    = local.host
    volume  = replace(aws_ebs_volume.state.id, "-", "")
  })

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 10
    encrypted   = true
  }

  # A newer image is no reason to replace the machine by itself.
  lifecycle {
    ignore_changes = [ami]
  }
}

resource "aws_volume_attachment" "state" {
  device_name                    = "/dev/sdf"
  instance_id                    = aws_instance.control.id
  volume_id                      = aws_ebs_volume.state.id
  stop_instance_before_detaching = true
}

resource "aws_eip_association" "control" {
  allocation_id = aws_eip.control.id
  instance_id   = aws_instance.control.id
}

// RUN: fuse-conv-add-relu
// CHECK:      "hbir.conv2d"(%arg0, %{{[0-9]+}}, %arg0) <{{.*}}max = 6.000000e+00 : f64, min = 0.000000e+00 : f64{{.*}}operandSegmentSizes = array<i32: 1, 1, 0, 1>
// CHECK-SAME: loc(fused["conv", "add", "relu6"])
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2x2x1xf32>) -> tensor<1x2x2x1xf32>}> ({
  ^bb0(%x: tensor<1x2x2x1xf32>):
    %w = "hbir.constant"() <{value = BLOB(f32: 2)}> : () -> tensor<1x1x1x1xf32>
    %c = "hbir.conv2d"(%x, %w) <{stride = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>,
      groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0>}>
      : (tensor<1x2x2x1xf32>, tensor<1x1x1x1xf32>) -> tensor<1x2x2x1xf32> loc("conv")
    %a = "hbir.add"(%x, %c) : (tensor<1x2x2x1xf32>, tensor<1x2x2x1xf32>) -> tensor<1x2x2x1xf32> loc("add")
    %r = "hbir.clip"(%a) <{min = 0.0 : f64, max = 6.0 : f64}> : (tensor<1x2x2x1xf32>) -> tensor<1x2x2x1xf32> loc("relu6")
    "func.return"(%r) : (tensor<1x2x2x1xf32>) -> ()
  }) : () -> ()
}) : () -> ()

// RUN: fold-batch-norm
// CHECK-NOT:  hbir.batch_norm
// CHECK:      "hbir.conv2d"
// CHECK-SAME: loc(fused["conv", "norm"])
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2x2x1xf32>) -> tensor<1x2x2x2xf32>}> ({
  ^bb0(%x: tensor<1x2x2x1xf32>):
    %w = "hbir.constant"() <{value = BLOB(f32: 1 2)}> : () -> tensor<2x1x1x1xf32>
    %p = "hbir.constant"() <{value = BLOB(f32: 0.5 3)}> : () -> tensor<2xf32>
    %c = "hbir.conv2d"(%x, %w) <{stride = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>,
      groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0>}>
      : (tensor<1x2x2x1xf32>, tensor<2x1x1x1xf32>) -> tensor<1x2x2x2xf32> loc("conv")
    %n = "hbir.batch_norm"(%c, %p, %p, %p, %p) <{epsilon = 1.0e-5 : f64}>
      : (tensor<1x2x2x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x2x2xf32> loc("norm")
    "func.return"(%n) : (tensor<1x2x2x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// Behind another reader it becomes a depthwise convolution; a scalar added to a scalar is left in peace.
// CHECK:      "hbir.clip"
// CHECK:      "hbir.conv2d"(%arg0, %{{.*}}) <{{.*}}groups = 2 : i64
// CHECK-NOT:  hbir.batch_norm
// CHECK:      "hbir.add"(%arg1
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x1x1x2xf32>, tensor<f32>)
    -> (tensor<1x1x1x2xf32>, tensor<1x1x1x2xf32>, tensor<f32>)}> ({
  ^bb0(%x: tensor<1x1x1x2xf32>, %s: tensor<f32>):
    %p = "hbir.constant"() <{value = BLOB(f32: 0.5 3)}> : () -> tensor<2xf32>
    %q = "hbir.constant"() <{value = BLOB(f32: 0.5)}> : () -> tensor<f32>
    %0 = "hbir.clip"(%x) <{min = 0.0 : f64}> : (tensor<1x1x1x2xf32>) -> tensor<1x1x1x2xf32>
    %n = "hbir.batch_norm"(%x, %p, %p, %p, %p) <{epsilon = 1.0e-5 : f64}>
      : (tensor<1x1x1x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x1x1x2xf32>
    %t = "hbir.add"(%s, %q) : (tensor<f32>, tensor<f32>) -> tensor<f32>
    "func.return"(%0, %n, %t) : (tensor<1x1x1x2xf32>, tensor<1x1x1x2xf32>, tensor<f32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// A reshape that keeps the channels may stand between; a batch norm in front of layers goes into all of them.
// CHECK:      "hbir.linear"{{.*}} loc(fused["dense", "norm"])
// CHECK-NEXT: "hbir.reshape"
// CHECK-NOT:  hbir.batch_norm
// CHECK:      "hbir.linear"(%arg1, %{{.*}}loc(fused["front", "left"])
// CHECK-NOT:  hbir.batch_norm
// CHECK:      "hbir.linear"(%arg1, %{{.*}}loc(fused["front", "right"])
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x3x2xf32>, tensor<3x2xf32>)
    -> (tensor<3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>)}> ({
  ^bb0(%x: tensor<1x3x2xf32>, %y: tensor<3x2xf32>):
    %w = "hbir.constant"() <{value = BLOB(f32: 1 2 3 4)}> : () -> tensor<2x2xf32>
    %p = "hbir.constant"() <{value = BLOB(f32: 0.5 3)}> : () -> tensor<2xf32>
    %l = "hbir.linear"(%x, %w)
      : (tensor<1x3x2xf32>, tensor<2x2xf32>) -> tensor<1x3x2xf32> loc("dense")
    %r = "hbir.reshape"(%l) <{shape = array<i64: 3, 2>}> : (tensor<1x3x2xf32>) -> tensor<3x2xf32>
    %n = "hbir.batch_norm"(%r, %p, %p, %p, %p) <{epsilon = 1.0e-5 : f64}>
      : (tensor<3x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<3x2xf32> loc("norm")
    %f = "hbir.batch_norm"(%y, %p, %p, %p, %p) <{epsilon = 1.0e-5 : f64}>
      : (tensor<3x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<3x2xf32> loc("front")
    %a = "hbir.linear"(%f, %w)
      : (tensor<3x2xf32>, tensor<2x2xf32>) -> tensor<3x2xf32> loc("left")
    %b = "hbir.linear"(%f, %w, %p)
      : (tensor<3x2xf32>, tensor<2x2xf32>, tensor<2xf32>) -> tensor<3x2xf32> loc("right")
    "func.return"(%n, %a, %b) : (tensor<3x2xf32>, tensor<3x2xf32>, tensor<3x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()

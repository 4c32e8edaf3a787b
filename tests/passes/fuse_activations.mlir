// RUN: fuse-activations
// CHECK:      "hbir.function"(%arg0) <{function = "silu"}>
// CHECK-SAME: loc("product")
// CHECK-NEXT: "hbir.function"(%0) <{function = "hardswish"}>
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2xf32>) -> tensor<2xf32>}> ({
  ^bb0(%x: tensor<2xf32>):
    %0 = "hbir.function"(%x) <{function = "sigmoid"}> : (tensor<2xf32>) -> tensor<2xf32> loc("gate")
    %1 = "hbir.mul"(%0, %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32> loc("product")
    %c = "hbir.constant"() <{value = BLOB(f32: 3)}> : () -> tensor<1xf32>
    %d = "hbir.constant"() <{value = BLOB(f32: 6)}> : () -> tensor<1xf32>
    %2 = "hbir.add"(%1, %c) : (tensor<2xf32>, tensor<1xf32>) -> tensor<2xf32>
    %3 = "hbir.clip"(%2) <{min = 0.0 : f64, max = 6.0 : f64}> : (tensor<2xf32>) -> tensor<2xf32>
    %4 = "hbir.mul"(%1, %3) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    %5 = "hbir.div"(%4, %d) : (tensor<2xf32>, tensor<1xf32>) -> tensor<2xf32>
    "func.return"(%5) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// ONNX's default hard sigmoid (slope 0.2) is not the gate of hard swish, and a six of higher rank changes the shape.
// CHECK:     "hbir.function"{{.*}}"hardsigmoid"
// CHECK:     "hbir.mul"
// CHECK:     "hbir.div"{{.*}} -> tensor<1x2xf32>
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2xf32>) -> (tensor<2xf32>, tensor<1x2xf32>)}> ({
  ^bb0(%x: tensor<2xf32>):
    %0 = "hbir.function"(%x) <{function = "hardsigmoid"}> : (tensor<2xf32>) -> tensor<2xf32>
    %1 = "hbir.mul"(%x, %0) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    %c = "hbir.constant"() <{value = BLOB(f32: 3)}> : () -> tensor<1xf32>
    %d = "hbir.constant"() <{value = BLOB(f32: 6)}> : () -> tensor<1x1xf32>
    %2 = "hbir.add"(%x, %c) : (tensor<2xf32>, tensor<1xf32>) -> tensor<2xf32>
    %3 = "hbir.clip"(%2) <{min = 0.0 : f64, max = 6.0 : f64}> : (tensor<2xf32>) -> tensor<2xf32>
    %4 = "hbir.mul"(%x, %3) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    %5 = "hbir.div"(%4, %d) : (tensor<2xf32>, tensor<1x1xf32>) -> tensor<1x2xf32>
    "func.return"(%1, %5) : (tensor<2xf32>, tensor<1x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
